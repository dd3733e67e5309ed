// Soft assignments by Student's t with one degree of freedom, and the divergence KL(P || Q) of a target P from them.

// For each of `rows` embeddings z (rows x dim) with the target p (rows x k): losses (rows) become its divergence, d_z the
// gradient of `scale` times the sum of the losses, and pulls (rows x k) what each centroid's gradient takes of z - centroid.
extern "C" __global__ void student(const float* z, const float* centroids, const float* p, double* losses, float* d_z,
                                   float* pulls, u32 rows, u32 k, u32 dim, float scale) {
    u64 row = number();
    if (row >= rows) return;
    const float* at = z + row * dim;
    float* own = pulls + row * k;
    float all = 0.0f, target = 0.0f;
    for (u32 c = 0; c < k; c++) {
        float squared = 0.0f;
        for (u32 d = 0; d < dim; d++) {
            float difference = at[d] - centroids[(u64)c * dim + d];
            squared = fmaf(difference, difference, squared);
        }
        own[c] = 1.0f / (1.0f + squared);
        all += own[c];
        target += p[row * k + c];
    }
    double loss = 0.0;
    for (u32 d = 0; d < dim; d++) d_z[row * dim + d] = 0.0f;
    for (u32 c = 0; c < k; c++) {
        float near = own[c], q = near / all, wanted = p[row * k + c];
        // Where the target is 0, so is its part of the divergence.
        loss += (double)wanted * (logf(wanted + 1e-20f) - logf(q));
        own[c] = 2.0f * scale * near * (wanted - target * q);
        for (u32 d = 0; d < dim; d++) d_z[row * dim + d] += own[c] * (at[d] - centroids[(u64)c * dim + d]);
    }
    losses[row] = loss;
}

// d_centroids (k x dim) from what `student` left in pulls, rows in their order.
extern "C" __global__ void student_centroids(const float* z, const float* centroids, const float* pulls, float* d_centroids,
                                             u32 rows, u32 k, u32 dim) {
    u64 at = number();
    if (at >= (u64)k * dim) return;
    u32 c = at / dim, d = at % dim;
    float sum = 0.0f;
    for (u32 row = 0; row < rows; row++) sum -= pulls[(u64)row * k + c] * (z[(u64)row * dim + d] - centroids[at]);
    d_centroids[at] = sum;
}

// total (one value) of `losses` (rows), times `scale`. One block.
extern "C" __global__ void sum_losses(const double* losses, float* total, u32 rows, double scale) {
    double sum = 0.0;
    for (u32 row = threadIdx.x; row < rows; row += BLOCK) sum += losses[row];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *total = (float)(sum * scale);
}
