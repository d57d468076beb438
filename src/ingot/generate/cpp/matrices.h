// Matrices in panels of 32 outputs, and their products with the activations of a few tokens or of many.
#pragma once

#include "vectors.h"

extern "C" {
enum Format : int32_t { FLOAT32, BFLOAT16, INT8, INT4 };
enum Activation : int32_t { GELU, SWIGLU, GEGLU };

struct Matrix {          // outputs in panels of 32; within a panel column by column
    const void* weights;
    const void* scales;  // INT8: a float per output; INT4: per 32 columns and output a bfloat16 scale and least value
    const float* bias;   // or null
    int64_t panels, columns;
    int32_t format;
};
}

namespace {

// --- Weights: 32 outputs' values of one column, of eight columns at a time --------------------------------------------

struct Float32 {
    const float* at;
    Float32(const Matrix& w, long panel) : at((const float*)w.weights + panel * PANEL * w.columns) {}
    void eight(long column) { (void)column; }
    void get(long column, Floats& a, Floats& b) const { a = load(at + column * PANEL), b = load(at + column * PANEL + LANES); }
};
struct BFloat16 {  // a word holds outputs i and i + 16
    const uint16_t* at;
    BFloat16(const Matrix& w, long panel) : at((const uint16_t*)w.weights + panel * PANEL * w.columns) {}
    void eight(long) {}
    void get(long column, Floats& a, Floats& b) const {
        const Words pair = words(at + column * PANEL);
        a = as_floats(pair << 16), b = as_floats(pair & 0xffff0000u);
    }
};
struct Int8 {  // two columns of one output lie side by side: 16 such pairs, then those of the other 16 outputs
    const int8_t* at;
    Int8(const Matrix& w, long panel) : at((const int8_t*)w.weights + panel * PANEL * w.columns) {}
    void eight(long) {}
    void get(long column, Floats& a, Floats& b) const {
        Floats* out[2] = {&a, &b};
        for (int half = 0; half < 2; half++) {
            Pairs pairs;
            memcpy(&pairs, at + column / 2 * 2 * PANEL + half * PANEL, 32);
            const Ints both = __builtin_convertvector(pairs, Ints);
            *out[half] = __builtin_convertvector(column % 2 ? both >> 8 : (both << 24) >> 24, Floats);
        }
    }
};
struct Int4 {  // a word holds eight columns of one output; value = code x scale + least
    const uint32_t *at, *pairs;
    Words codes[2] = {};
    Floats scale[2] = {}, least[2] = {};
    Int4(const Matrix& w, long panel)
        : at((const uint32_t*)w.weights + panel * PANEL * w.columns / 8),
          pairs((const uint32_t*)w.scales + panel * PANEL * w.columns / 32) {}
    void eight(long column) {
        for (int half = 0; half < 2; half++) {
            codes[half] = words(at + column / 8 * PANEL + half * LANES);
            if (column % 32 == 0) {
                const Words pair = words(pairs + column / 32 * PANEL + half * LANES);
                scale[half] = as_floats(pair << 16), least[half] = as_floats(pair & 0xffff0000u);
            }
        }
    }
    void get(long column, Floats& a, Floats& b) const {
        Floats* out[2] = {&a, &b};
        for (int half = 0; half < 2; half++) {
            const Words code = (codes[half] >> (uint32_t)(4 * (column % 8))) & 15u;
            *out[half] = __builtin_convertvector((Ints)code, Floats) * scale[half] + least[half];
        }
    }
};

// --- Products: y (M, outputs) = x (M, K) times weights, each output summed up column by column ------------------------

struct Target {
    float* y;
    long stride;
    bool add;
};

inline void finish(Floats value, const Matrix& w, long output, long row, Target to) {
    if (w.bias) value += load(w.bias + output);
    float* place = to.y + row * to.stride + output;
    store(place, to.add ? load(place) + value : value);
}

template <class F, int M, int N>  // M tokens times N panels, all sums in registers
void tile(const float* x, long stride, const Matrix& source, const Matrix& w, long panel, long at, Target to) {
    F weights[4] = {{source, at}, {source, at + (N > 1)}, {source, at + 2 * (N > 2)}, {source, at + 3 * (N > 3)}};
    Floats sums[M][2 * N] = {};
    for (long column = 0; column < w.columns; column += 8) {
        for (int n = 0; n < N; n++) weights[n].eight(column);
#pragma GCC unroll 8
        for (long j = 0; j < 8; j++) {
            for (int n = 0; n < N; n++) {
                Floats a, b;
                weights[n].get(column + j, a, b);
#pragma GCC unroll 16
                for (int m = 0; m < M; m++) {
                    const Floats value = all(x[m * stride + column + j]);
                    sums[m][2 * n] += value * a, sums[m][2 * n + 1] += value * b;
                }
            }
        }
    }
    for (int half = 0; half < 2 * N; half++) {
        const long output = panel * PANEL + half * LANES;
        for (int m = 0; m < M; m++) {
            Floats value = sums[m][half];
            if (w.format == INT8) value *= load((const float*)w.scales + output);
            finish(value, w, output, m, to);
        }
    }
}

// All of a panel for any number of tokens, in tiles of a few sizes; `source` holds the weights at panel `at`.
template <class F>
void rows_times_panel(long rows, const float* x, long stride, const Matrix& source, const Matrix& w, long panel, long at, Target to) {
    while (rows > 0) {
        long now;
        if (rows >= 12 && TILE >= 12) now = 12, tile<F, TILE, 1>(x, stride, source, w, panel, at, to);
        else if (rows >= 8 && TILE >= 12) now = 8, tile<F, TILE * 2 / 3, 1>(x, stride, source, w, panel, at, to);
        else if (rows >= 6 && TILE >= 12) now = 6, tile<F, TILE / 2, 1>(x, stride, source, w, panel, at, to);
        else if (rows >= 4) now = 4, tile<F, 4, 1>(x, stride, source, w, panel, at, to);
        else if (rows >= 2) now = 2, tile<F, 2, 1>(x, stride, source, w, panel, at, to);
        else now = 1, tile<F, 1, 1>(x, stride, source, w, panel, at, to);
        rows -= now, x += now * stride, to.y += now * to.stride;
    }
}

template <class F>
void unpack(const Matrix& w, long panel, float* room) {
    F weights(w, panel);
    for (long column = 0; column < w.columns; column += 8) {
        weights.eight(column);
        for (long j = 0; j < 8; j++) {
            Floats a, b;
            weights.get(column + j, a, b);
            store(room + (column + j) * PANEL, a), store(room + (column + j) * PANEL + LANES, b);
        }
    }
}

template <class F>
void times(long rows, const float* x, long stride, const Matrix& w, long begin, long end, Target to, float* room) {
    long panel = begin;
    if (rows == 1) {
        for (; panel + 4 <= end; panel += 4) tile<F, 1, 4>(x, stride, w, w, panel, panel, to);
    }
    if (rows == 1 || rows == 2) {  // one panel alone would leave the processor waiting for its own sums
        for (; panel + 2 <= end; panel += 2)
            rows == 1 ? tile<F, 1, 2>(x, stride, w, w, panel, panel, to) : tile<F, 2, 2>(x, stride, w, w, panel, panel, to);
    }
    for (long first = 0; first < rows; first += BLOCK) {
        const long count = rows - first < BLOCK ? rows - first : BLOCK;
        const Target part = {to.y + first * to.stride, to.stride, to.add};
        for (long p = panel; p < end; p++) {
            if (count <= 2 * TILE || w.format == FLOAT32) {
                rows_times_panel<F>(count, x + first * stride, stride, w, w, p, p, part);
            } else {
                unpack<F>(w, p, room);
                Matrix plain = w;
                plain.weights = room;
                rows_times_panel<Float32>(count, x + first * stride, stride, plain, w, p, 0, part);
            }
        }
    }
}

}  // namespace
