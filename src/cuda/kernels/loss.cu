// The losses of a batch with their gradients. Sums are in double precision, one a block.

// Of the reconstruction y of x (rows x width): d becomes scale * w * (y - x), and sums (one a block) those of w * (y - x)^2.
// Without weights, `weighted` is 0.
extern "C" __global__ void weighted_error(const float* x, const float* y, const float* weights, float* d, double* sums,
                                          u32 rows, u32 width, u32 weighted, float scale) {
    u64 count = (u64)rows * width;
    double sum = 0.0;
    for (u64 at = number(); at < count; at += threads()) {
        float w = weighted ? weights[at % width] : 1.0f;
        float error = y[at] - x[at];
        float weighted = w * error;
        d[at] = scale * weighted;
        sum += (double)weighted * error;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// No target.
#define NOWHERE 0xFFFFFFFFu

// Of the embeddings z (rows x dim) of the training rows `numbers`, whose targets are at `places` of `targets`: adds scale *
// (z - target) to d, and sums (one a block) become those of (z - target)^2. Rows without a target lose nothing.
extern "C" __global__ void placed_error(const float* z, const u32* numbers, const u32* places, const float* targets,
                                        float* d, double* sums, u32 rows, u32 dim, float scale) {
    u32 count = rows * dim;
    double sum = 0.0;
    for (u64 at = number(); at < count; at += threads()) {
        u32 place = places[numbers[at / dim]];
        if (place == NOWHERE) continue;
        float error = z[at] - targets[(u64)place * dim + at % dim];
        d[at] += scale * error;
        sum += (double)error * error;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Adds `more` to `values`.
extern "C" __global__ void add_to(float* values, const float* more, u64 count) {
    for (u64 at = number(); at < count; at += threads()) values[at] += more[at];
}

// sums (one a block) of the squares of `values`.
extern "C" __global__ void sum_of_squares(const float* values, double* sums, u64 count) {
    double sum = 0.0;
    for (u64 at = number(); at < count; at += threads()) sum += (double)values[at] * values[at];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
