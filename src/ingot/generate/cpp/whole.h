// Products in whole numbers, for processors that add them up in one operation: weights of 8 or 4 bits, activations
// rounded to 16 bits with a scale for each token, and sums that are exact.
#pragma once

#include "matrices.h"

#ifdef __AVX512VNNI__

namespace {

struct Rounded {
    const int16_t* x;     // INT4: columns 0 4 1 5 2 6 3 7 of each eight, as their codes lie in a word
    const float *scales;  // of each token
    const float *groups;  // INT4: (M, K/32), sums of 32 columns
    long columns;
    Rounded from(long row) const { return {x + row * columns, scales + row, groups + row * (columns / 32), columns}; }
};

inline Ints widened(const int8_t* from) { return (Ints)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)from)); }
inline Ints dot(Ints sum, Ints a, Ints b) { return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b); }
inline Ints pair(const int16_t* x) { int32_t both; memcpy(&both, x, 4); return both - Ints{}; }

template <int M, int N>
void whole_tile8(Rounded x, const Matrix& w, long panel, Target to) {
    const int8_t* at = (const int8_t*)w.weights + panel * PANEL * w.columns;
    Ints sums[M][2 * N] = {};
    for (long column = 0; column < w.columns; column += 8) {
#pragma GCC unroll 4
        for (long j = 0; j < 8; j += 2) {
            for (int n = 0; n < N; n++) {
                const int8_t* pairs = at + (n * w.columns + column + j) * PANEL;
                const Ints a = widened(pairs), b = widened(pairs + PANEL);
#pragma GCC unroll 16
                for (int m = 0; m < M; m++) {
                    const Ints value = pair(x.x + m * x.columns + column + j);
                    sums[m][2 * n] = dot(sums[m][2 * n], value, a), sums[m][2 * n + 1] = dot(sums[m][2 * n + 1], value, b);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int half = 0; half < 2 * N; half++) {
        const long output = panel * PANEL + half * LANES;
        const Floats scale = load((const float*)w.scales + output);
#pragma GCC unroll 16
        for (int m = 0; m < M; m++)
            finish(__builtin_convertvector(sums[m][half], Floats) * (scale * x.scales[m]), w, output, m, to);
    }
}

template <int M, int N>
void whole_tile4(Rounded x, const Matrix& w, long panel, Target to) {
    const uint32_t* at = (const uint32_t*)w.weights + panel * PANEL * w.columns / 8;
    const uint32_t* pairs = (const uint32_t*)w.scales + panel * PANEL * w.columns / 32;
    Floats totals[M][2 * N] = {};
    for (long column = 0; column < w.columns; column += 32) {
        Ints sums[M][2 * N] = {};
#pragma GCC unroll 4
        for (long eight = 0; eight < 4; eight++) {
#pragma GCC unroll 8
            for (int half = 0; half < 2 * N; half++) {
                const long place = half / 2 * w.columns * PANEL / 8 + (column / 8 + eight) * PANEL + half % 2 * LANES;
                const Words codes = words(at + place);
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) {
                    const Ints two = (Ints)((codes >> (uint32_t)(4 * j)) & 0x000f000fu);
#pragma GCC unroll 8
                    for (int m = 0; m < M; m++)
                        sums[m][half] = dot(sums[m][half], pair(x.x + m * x.columns + column + 8 * eight + 2 * j), two);
                }
            }
        }
#pragma GCC unroll 8
        for (int half = 0; half < 2 * N; half++) {
            const Words both = words(pairs + half / 2 * w.columns * PANEL / 32 + column / 32 * PANEL + half % 2 * LANES);
            const Floats scale = as_floats(both << 16), least = as_floats(both & 0xffff0000u);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) {
                totals[m][half] += __builtin_convertvector(sums[m][half], Floats) * scale;
                totals[m][half] += x.groups[m * (x.columns / 32) + column / 32] * least;
            }
        }
    }
    for (int half = 0; half < 2 * N; half++)
        for (int m = 0; m < M; m++)
            finish(totals[m][half] * x.scales[m], w, panel * PANEL + half * LANES, m, to);
}

template <int M, int N>
void whole_tile(Rounded x, const Matrix& w, long panel, Target to) {
    w.format == INT8 ? whole_tile8<M, N>(x, w, panel, to) : whole_tile4<M, N>(x, w, panel, to);
}

// A token's activations in steps so fine that the sum of its row can't overflow: at least 2^14 of them up to 1,000 columns.
void round_row(const float* x, long columns, int32_t format, int16_t* out, float* scale, float* groups) {
    const long most = format == INT8 ? 2147483647 / (127 * columns) : 32767;
    const float limit = most < 32767 ? most : 32767;
    Floats high = {};
    for (long i = 0; i < columns; i += LANES) {
        const Floats v = load(x + i), size = v < 0 ? -v : v;
        high = size > high ? size : high;
    }
    float top = 1e-30f;
    for (int i = 0; i < LANES; i++) top = high[i] > top ? high[i] : top;
    const float steps = limit / top;
    *scale = top / limit;
    for (long i = 0; i < columns; i += LANES) {
        const Ints whole = (Ints)_mm512_cvtps_epi32((__m512)(load(x + i) * steps));
        for (int j = 0; j < LANES; j++) out[i + (format == INT8 ? j : j / 8 * 8 + j % 4 * 2 + j % 8 / 4)] = whole[j];
    }
    for (long group = 0; format == INT4 && group < columns / 32; group++) {
        int32_t sum = 0;
        for (long i = 0; i < 32; i++) sum += out[group * 32 + i];
        groups[group] = sum;
    }
}

void whole_times(long rows, const float* x, const Matrix& w, long begin, long end, Target to, float* room) {
    for (long first = 0; first < rows; first += BLOCK) {
        const long count = rows - first < BLOCK ? rows - first : BLOCK;
        float* scales = room + BLOCK / 2 * w.columns;
        float* groups = scales + BLOCK;
        int16_t* numbers = (int16_t*)room;
        for (long m = 0; m < count; m++)
            round_row(x + (first + m) * w.columns, w.columns, w.format, numbers + m * w.columns, scales + m, groups + m * (w.columns / 32));
        const Rounded all_rows = {numbers, scales, groups, w.columns};
        const Target part = {to.y + first * to.stride, to.stride, to.add};
        long panel = begin;
        for (; count == 1 && panel + 4 <= end; panel += 4) whole_tile<1, 4>(all_rows, w, panel, part);
        for (; count == 1 && panel + 2 <= end; panel += 2) whole_tile<1, 2>(all_rows, w, panel, part);
        for (; count == 2 && panel + 2 <= end; panel += 2) whole_tile<2, 2>(all_rows, w, panel, part);
        for (; panel < end; panel++) {
            for (long row = 0; row < count;) {
                const Rounded at = all_rows.from(row);
                const Target place = {part.y + row * to.stride, to.stride, to.add};
                const long left = count - row;
                if (left >= 12 && w.format == INT8) whole_tile8<12, 1>(at, w, panel, place), row += 12;
                else if (left >= 6) whole_tile<6, 1>(at, w, panel, place), row += 6;
                else if (left >= 4) whole_tile<4, 1>(at, w, panel, place), row += 4;
                else if (left >= 2) whole_tile<2, 1>(at, w, panel, place), row += 2;
                else whole_tile<1, 1>(at, w, panel, place), row += 1;
            }
        }
    }
}

}  // namespace
#endif
