// Vectors of the compiler's own, so that this is no program for one processor; sixteen numbers of 32 bits each.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef int16_t Pairs __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(64)));

constexpr long LANES = 16, PANEL = 32, STRIPE = 4 * LANES;  // outputs at once; keys at once
constexpr long BLOCK = 96;                                  // tokens whose activations stay in the second cache
#ifdef __AVX512F__
constexpr int TILE = 12;  // tokens whose sums fit into the registers
#else
constexpr int TILE = 4;
#endif

namespace {

inline Floats load(const float* from) { Floats v; memcpy(&v, from, 64); return v; }
inline void store(float* to, Floats v) { memcpy(to, &v, 64); }
inline Words words(const void* from) { Words v; memcpy(&v, from, 64); return v; }
inline Floats all(float x) { return x - Floats{}; }
inline Floats as_floats(Words bits) { Floats v; memcpy(&v, &bits, 64); return v; }
inline long padded(long n, long unit) { return (n + unit - 1) / unit * unit; }

inline float total(Floats v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

// e to the power of x, to about one part in ten million (range reduction and a polynomial, after Cephes).
inline Floats exponential(Floats x) {
    x = x < -87.0f ? all(-87.0f) : x;
    x = x > 88.0f ? all(88.0f) : x;
    const Floats shift = all(12582912.0f);
    const Floats whole = (x * 1.44269504f + shift) - shift;
    const Floats rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats p = all(1.9875691500e-4f);
    p = p * rest + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1.0f;
    const Ints power = (__builtin_convertvector(whole, Ints) + 127) << 23;
    Floats scale;
    memcpy(&scale, &power, 64);
    return p * scale;
}

inline Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }
inline Floats gelu(Floats x) {  // 0.5 (1 + tanh(y)) is the sigmoid of 2y
    return x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x));
}

}  // namespace
