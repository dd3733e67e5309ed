// Rows of the training set.

// out (count x dim) become the rows of `all` with these numbers.
extern "C" __global__ void gather_rows(const float* all, const u32* numbers, float* out, u32 count, u32 dim) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= dim) return;
    for (u32 row = blockIdx.y; row < count; row += gridDim.y)
        out[(u64)row * dim + column] = all[(u64)numbers[row] * dim + column];
}
