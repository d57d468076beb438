"""A server that speaks OpenAI's API over trained models, and the web page that it serves."""
