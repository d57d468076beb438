// A decoder reads tokens on a CPU: every operation of every layer in one call, so that a small model does not wait for
// Python, and weights pass through the processor once and in order, so that a large one reads at the memory's speed.
//
// Each number is summed up in one fixed order, whatever else is read in the same call: a text is the same, bit for bit,
// alone or among others, in one piece or in many. Vectors are the compiler's own, so this is no program for one processor.
//
// M tokens of a call, D hidden size, H heads, G key/value heads, C head size, F MLP size, K columns of a matrix.
// Rows of activations are padded with zeros to a multiple of PANEL. The structs are mirrored in native.py.

#ifdef _OPENMP
#include <omp.h>
#endif

#include "matrices.h"
#include "whole.h"

extern "C" {
struct Norm { const float *weight, *bias; };  // LayerNorm where it has a bias
struct Layer { Norm attention_norm; Matrix qkv; const float *query_norm, *key_norm; Matrix output; Norm mlp_norm; Matrix up, down; };
struct Model {
    int64_t layers, hidden, heads, groups, size, mlp;
    float eps, scale;
    int32_t activation;
    const float *cosines, *sines;  // (positions, C/2), or null
    const Layer* layer;
    Norm norm;
    Matrix head;
};
struct Cache { float *keys, *values; int64_t rows, slots; };  // (L, rows, G, slots/64, C, 64), (L, rows, G, slots, C')
struct Call {
    int64_t tokens, wanted;
    float* stream;                           // (M, D'): embeddings in, hidden states out
    const int32_t *rows, *positions, *asked;  // (M), (M), (wanted): which of the tokens' logits
    float *normed, *wide, *mixed, *inner, *logits;  // room: (M, D'), (M, max(QKV', 2F')), (M, HC'), (M, F'), (wanted, V')
    float* panels;  // room for each thread: (BLOCK / 2 + 4) x the most columns + BLOCK
    float* scores;  // room for each thread: 4 x slots
    int64_t panel_room;
    int32_t threads;
};
}

namespace {

struct Thread { long own, of; };

inline long share(long count, Thread t) { return count * t.own / t.of; }
inline long share_end(long count, Thread t) { return count * (t.own + 1) / t.of; }

void product(long rows, const float* x, const Matrix& w, long begin, long end, Target to, float* room) {
#ifdef __AVX512VNNI__
    if (w.format == INT8 || w.format == INT4) return whole_times(rows, x, w, begin, end, to, room);
#endif
    switch (w.format) {
        case FLOAT32: return times<Float32>(rows, x, w.columns, w, begin, end, to, room);
        case BFLOAT16: return times<BFloat16>(rows, x, w.columns, w, begin, end, to, room);
        case INT8: return times<Int8>(rows, x, w.columns, w, begin, end, to, room);
        default: return times<Int4>(rows, x, w.columns, w, begin, end, to, room);
    }
}

// --- Everything else --------------------------------------------------------------------------------------------------

void normalise(const float* x, float* y, long size, const Norm& norm, float eps) {
    Floats sum = {};
    float mean = 0;
    const long whole = padded(size, LANES);  // the padding is zero
    if (norm.bias) {
        for (long i = 0; i < whole; i += LANES) sum += load(x + i);
        mean = total(sum) / size;
        sum = Floats{};
        for (long i = 0; i < size; i++) sum[i % LANES] += (x[i] - mean) * (x[i] - mean);
    } else {
        for (long i = 0; i < whole; i += LANES) sum += load(x + i) * load(x + i);
    }
    const float scale = 1.0f / std::sqrt(total(sum) / size + eps);
    for (long i = 0; i < size; i++) y[i] = (x[i] - mean) * scale * norm.weight[i] + (norm.bias ? norm.bias[i] : 0.0f);
}

struct Shape {  // of what lies in memory
    long width, qkv, mixed, inner, value;  // padded rows; a value in the cache
    long keys_row, values_row;             // a row's group in the cache
    Shape(const Model& model, const Cache& cache)
        : width(padded(model.hidden, PANEL)), qkv(padded((model.heads + 2 * model.groups) * model.size, PANEL)),
          mixed(padded(model.heads * model.size, PANEL)), inner(padded(model.mlp, PANEL)), value(padded(model.size, LANES)),
          keys_row(cache.slots * model.size), values_row(cache.slots * value) {}
};

void turn(float* head, long size, const float* cosines, const float* sines) {
    for (long i = 0; i < size / 2; i++) {
        const float first = head[i], second = head[i + size / 2];
        head[i] = first * cosines[i] - second * sines[i];
        head[i + size / 2] = second * cosines[i] + first * sines[i];
    }
}

// Norm and turn the token's queries and keys, and keep its keys and values.
void remember(const Model& model, const Layer& layer, long number, const Cache& cache, const Shape& shape, float* qkv, long row, long position) {
    const long size = model.size;
    for (long head = 0; head < model.heads + model.groups; head++) {
        const float* weight = head < model.heads ? layer.query_norm : layer.key_norm;
        float* one = qkv + head * size;
        if (weight) {
            float squares = 0;
            for (long i = 0; i < size; i++) squares += one[i] * one[i];
            const float scale = 1.0f / std::sqrt(squares / size + model.eps);
            for (long i = 0; i < size; i++) one[i] *= scale * weight[i];
        }
        if (model.cosines) turn(one, size, model.cosines + position * (size / 2), model.sines + position * (size / 2));
    }
    for (long group = 0; group < model.groups; group++) {
        const long place = (number * cache.rows + row) * model.groups + group;
        float* keys = cache.keys + place * shape.keys_row + position / STRIPE * STRIPE * size + position % STRIPE;
        float* values = cache.values + place * shape.values_row + position * shape.value;
        const float *key = qkv + (model.heads + group) * size, *value = qkv + (model.heads + model.groups + group) * size;
        for (long i = 0; i < size; i++) keys[i * STRIPE] = key[i], values[i] = value[i];
    }
}

// Softmax attention of Q queries of one group over the slots 0 to `last`; `scores` has room for Q x slots.
template <int Q>
void attend(const float* queries, long size, long value_size, const float* keys, const float* values, long last, float scale, float* scores, long slots, float* out) {
    for (long first = 0; first <= last; first += STRIPE) {
        Floats sums[Q][4] = {};
        const float* stripe = keys + first * size;
        for (long c = 0; c < size; c++) {
            for (int part = 0; part < 4; part++) {
                const Floats key = load(stripe + c * STRIPE + part * LANES);
                for (int q = 0; q < Q; q++) sums[q][part] += queries[q * size + c] * key;
            }
        }
        for (int q = 0; q < Q; q++)
            for (int part = 0; part < 4; part++) store(scores + q * slots + first + part * LANES, sums[q][part] * scale);
    }
    float shares[Q];
    for (int q = 0; q < Q; q++) {
        float* own = scores + q * slots;
        for (long s = last + 1; s < padded(last + 1, LANES); s++) own[s] = -INFINITY;
        Floats highest = load(own), sum = {};
        for (long s = LANES; s <= last; s += LANES) { const Floats v = load(own + s); highest = v > highest ? v : highest; }
        float top = highest[0];
        for (int i = 1; i < LANES; i++) top = highest[i] > top ? highest[i] : top;
        for (long s = 0; s <= last; s += LANES) {
            Floats v = load(own + s);
            v = v == -INFINITY ? Floats{} : exponential(v - top);
            sum += v;
            store(own + s, v);
        }
        shares[q] = 1.0f / total(sum);
    }
    for (long c = 0; c < value_size; c += LANES) {
        Floats sums[Q] = {}, others[Q] = {};  // even and odd slots
        for (long s = 0; s < last; s += 2) {
            const Floats value = load(values + s * value_size + c), other = load(values + (s + 1) * value_size + c);
            for (int q = 0; q < Q; q++) sums[q] += scores[q * slots + s] * value, others[q] += scores[q * slots + s + 1] * other;
        }
        if (last % 2 == 0) {
            const Floats value = load(values + last * value_size + c);
            for (int q = 0; q < Q; q++) sums[q] += scores[q * slots + last] * value;
        }
        for (int q = 0; q < Q; q++) {
            const Floats mixed = (sums[q] + others[q]) * shares[q];
            memcpy(out + q * size + c, &mixed, sizeof(float) * (size - c < LANES ? size - c : LANES));
        }
    }
}

// The queries of a token's group, as many at a time as fit.
void attend_group(const float* queries, long count, long size, long value_size, const float* keys, const float* values, long last, float scale, float* scores, long slots, float* out) {
    while (count > 0) {
        const long now = count < 4 ? count : 4;
        switch (now) {
            case 1: attend<1>(queries, size, value_size, keys, values, last, scale, scores, slots, out); break;
            case 2: attend<2>(queries, size, value_size, keys, values, last, scale, scores, slots, out); break;
            case 3: attend<3>(queries, size, value_size, keys, values, last, scale, scores, slots, out); break;
            default: attend<4>(queries, size, value_size, keys, values, last, scale, scores, slots, out);
        }
        queries += now * size, out += now * size, count -= now;
    }
}

void mix(const Model& model, const Cache& cache, const Shape& shape, const Call& call, long number, Thread t) {
    const long together = model.heads / model.groups;
    const long parts = call.tokens * model.groups < 4 * t.of ? together : 1;  // few tokens: share out the queries too
    const long tasks = call.tokens * model.groups * parts;
    for (long task = share(tasks, t); task < share_end(tasks, t); task++) {
        const long token = task / (model.groups * parts), group = task / parts % model.groups, part = task % parts;
        const long begin = together * part / parts, count = together * (part + 1) / parts - begin;
        const long place = (number * cache.rows + call.rows[token]) * model.groups + group;
        const long head = (group * together + begin) * model.size;
        attend_group(call.wide + token * shape.qkv + head, count, model.size, shape.value, cache.keys + place * shape.keys_row,
                     cache.values + place * shape.values_row, call.positions[token], model.scale,
                     call.scores + t.own * 4 * cache.slots, cache.slots, call.mixed + token * shape.mixed + head);
    }
}

// Up, and a gate where there is one: its panels lie before those of up, and a thread makes the same of both.
void widen(const Model& model, const Layer& layer, const Shape& shape, const Call& call, Thread t, float* room) {
    const bool gated = model.activation != GELU;
    const long panels = shape.inner / PANEL, begin = share(panels, t), end = share_end(panels, t);
    const long stride = gated ? 2 * shape.inner : shape.inner;
    product(call.tokens, call.normed, layer.up, begin, end, {call.wide, stride, false}, room);
    if (gated) product(call.tokens, call.normed, layer.up, panels + begin, panels + end, {call.wide, stride, false}, room);
    for (long m = 0; m < call.tokens; m++) {
        const float* wide = call.wide + m * stride;
        for (long i = begin * PANEL; i < end * PANEL; i += LANES) {
            const Floats x = load(wide + i);
            Floats y = model.activation == SWIGLU ? x * sigmoid(x) : gelu(x);
            if (gated) y *= load(wide + shape.inner + i);
            store(call.inner + m * shape.inner + i, y);
        }
    }
}

void normalise_all(const Model& model, const Norm& norm, const Shape& shape, const Call& call, Thread t) {
    for (long m = share(call.tokens, t); m < share_end(call.tokens, t); m++)
        normalise(call.stream + m * shape.width, call.normed + m * shape.width, model.hidden, norm, model.eps);
}

#ifdef _OPENMP
#define WAIT _Pragma("omp barrier")
#else
#define WAIT
#endif

void work(const Model& model, const Cache& cache, const Call& call, Thread t) {
    const Shape shape(model, cache);
    float* room = call.panels + t.own * call.panel_room;
    const auto shared = [&](const Matrix& w, const float* x, Target to) {
        product(call.tokens, x, w, share(w.panels, t), share_end(w.panels, t), to, room);
    };
    for (long number = 0; number < model.layers; number++) {
        const Layer& layer = model.layer[number];
        normalise_all(model, layer.attention_norm, shape, call, t);
        WAIT
        shared(layer.qkv, call.normed, {call.wide, shape.qkv, false});
        WAIT
        for (long m = share(call.tokens, t); m < share_end(call.tokens, t); m++)
            remember(model, layer, number, cache, shape, call.wide + m * shape.qkv, call.rows[m], call.positions[m]);
        WAIT
        mix(model, cache, shape, call, number, t);
        WAIT
        shared(layer.output, call.mixed, {call.stream, shape.width, true});
        WAIT
        normalise_all(model, layer.mlp_norm, shape, call, t);
        WAIT
        widen(model, layer, shape, call, t, room);
        WAIT
        shared(layer.down, call.inner, {call.stream, shape.width, true});
        WAIT
    }
    for (long m = share(call.wanted, t); m < share_end(call.wanted, t); m++)
        normalise(call.stream + call.asked[m] * shape.width, call.normed + m * shape.width, model.hidden, model.norm, model.eps);
    WAIT
    product(call.wanted, call.normed, model.head, share(model.head.panels, t), share_end(model.head.panels, t),
            {call.logits, model.head.panels * PANEL, false}, room);
}

}  // namespace

extern "C" void read(const Model* model, const Cache* cache, const Call* call) {
#ifdef _OPENMP
#pragma omp parallel num_threads(call->threads)
    work(*model, *cache, *call, {omp_get_thread_num(), omp_get_num_threads()});
#else
    work(*model, *cache, *call, {0, 1});
#endif
}
