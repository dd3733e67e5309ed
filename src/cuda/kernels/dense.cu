// Dense layers around their matrix products: bias and activation forward, slope of the activation and gradient of the
// bias backward.

// As Activation::number.
#define IDENTITY 0
#define RELU 1
#define TANH 2
#define SIGMOID 3
#define LEAKY_RELU 4
#define ELU 5
#define SOFTPLUS 6

__device__ static inline float activate(float x, u32 activation) {
    switch (activation) {
        case RELU: return x > 0.0f ? x : (x == x ? 0.0f : x);
        case TANH: return tanhf(x);
        case SIGMOID: return 1.0f / (1.0f + expf(-x));
        case LEAKY_RELU: return x > 0.0f ? x : 0.01f * x;
        case ELU: return x > 0.0f ? x : expm1f(x);
        // Does not overflow.
        case SOFTPLUS: return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
        default: return x;
    }
}

// The activation's slope where it gave `y`.
__device__ static inline float slope(float y, u32 activation) {
    switch (activation) {
        case RELU: return y > 0.0f ? 1.0f : 0.0f;
        case TANH: return 1.0f - y * y;
        case SIGMOID: return y * (1.0f - y);
        case LEAKY_RELU: return y > 0.0f ? 1.0f : 0.01f;
        case ELU: return y > 0.0f ? 1.0f : y + 1.0f;
        case SOFTPLUS: return -expm1f(-y);
        default: return 1.0f;
    }
}

// values (rows x width) become activation(values + bias).
extern "C" __global__ void bias_activation(float* values, const float* bias, u32 rows, u32 width, u32 activation) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    for (u32 row = blockIdx.y; row < rows; row += gridDim.y) {
        u64 at = (u64)row * width + column;
        values[at] = activate(values[at] + bias[column], activation);
    }
}

// below (rows x width) become the gradient before the activation, from the one after it and the outputs; part (parts x
// width) the sums of them over `part_rows` rows each.
extern "C" __global__ void activation_gradient(const float* gradient, const float* outputs, float* below, float* part,
                                               u32 rows, u32 width, u32 part_rows, u32 activation) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    u32 first = blockIdx.y * part_rows;
    u32 last = first + part_rows < rows ? first + part_rows : rows;
    float sum = 0.0f;
    for (u32 row = first; row < last; row++) {
        u64 at = (u64)row * width + column;
        float d = gradient[at] * slope(outputs[at], activation);
        below[at] = d;
        sum += d;
    }
    part[(u64)blockIdx.y * width + column] = sum;
}

// sums (width) of part (parts x width), in the order of the parts; added to what is there if `add`.
extern "C" __global__ void sum_parts(const float* part, float* sums, u32 parts, u32 width, u32 add) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = add ? sums[column] : 0.0f;
    for (u32 i = 0; i < parts; i++) sum += part[(u64)i * width + column];
    sums[column] = sum;
}
