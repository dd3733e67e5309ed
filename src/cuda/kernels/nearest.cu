// The nearest centroid of each row, and the sums of the clusters.

// Rows of a block, one a thread; values and centroids of a tile.
#define ROWS 128
#define TILE 16

// labels, squared and second (n) of rows (n x dim) and centroids (k x dim): the nearest, in a tie the lower number, its
// squared distance, and that of the second nearest, infinite for a single centroid.
extern "C" __global__ void nearest(const float* rows, const float* centroids, u32* labels, float* squared, float* second,
                                   u64 n, u32 k, u32 dim) {
    // One column more than values, so that the rows of a column lie in different banks.
    __shared__ float row_tile[ROWS][TILE + 1];
    __shared__ float centroid_tile[TILE][TILE];
    u64 first_row = (u64)blockIdx.x * ROWS;
    u64 row = first_row + threadIdx.x;
    float infinite = __int_as_float(0x7f800000);
    float least = infinite, next = infinite;
    u32 label = 0;
    for (u32 c0 = 0; c0 < k; c0 += TILE) {
        float sums[TILE];
        for (u32 c = 0; c < TILE; c++) sums[c] = 0.0f;
        for (u32 d0 = 0; d0 < dim; d0 += TILE) {
            for (u32 i = threadIdx.x; i < ROWS * TILE; i += ROWS) {
                u64 from = first_row + i / TILE;
                u32 d = d0 + i % TILE;
                row_tile[i / TILE][i % TILE] = from < n && d < dim ? rows[from * dim + d] : 0.0f;
            }
            for (u32 i = threadIdx.x; i < TILE * TILE; i += ROWS) {
                u32 c = c0 + i / TILE, d = d0 + i % TILE;
                centroid_tile[i / TILE][i % TILE] = c < k && d < dim ? centroids[(u64)c * dim + d] : 0.0f;
            }
            __syncthreads();
            for (u32 c = 0; c < TILE; c++) {
                float sum = 0.0f;
                for (u32 d = 0; d < TILE; d++) {
                    float difference = row_tile[threadIdx.x][d] - centroid_tile[c][d];
                    sum = fmaf(difference, difference, sum);
                }
                sums[c] += sum;
            }
            __syncthreads();
        }
        for (u32 c = 0; c < TILE && c0 + c < k; c++) {
            if (sums[c] < least || c0 + c == 0) {
                next = least;
                least = sums[c];
                label = c0 + c;
            } else if (sums[c] < next) {
                next = sums[c];
            }
        }
    }
    if (row >= n) return;
    labels[row] = label;
    squared[row] = least;
    second[row] = next;
}

// part (parts x k x (dim + 1)), zero before: the sums of the rows of each label over `part_rows` rows each, and last how many
// they are. A thread has a column of a part to itself, so that rows are added in their order.
extern "C" __global__ void cluster_sums(const float* rows, const u32* labels, double* part, u64 n, u32 k, u32 dim,
                                        u64 part_rows) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column > dim) return;
    u64 first = blockIdx.y * part_rows;
    u64 last = first + part_rows < n ? first + part_rows : n;
    double* sums = part + (u64)blockIdx.y * k * (dim + 1);
    for (u64 row = first; row < last; row++)
        sums[(u64)labels[row] * (dim + 1) + column] += column < dim ? (double)rows[row * dim + column] : 1.0;
}

// sums (len) of part (parts x len), in the order of the parts.
extern "C" __global__ void sum_wide_parts(const double* part, double* sums, u32 parts, u64 len) {
    for (u64 at = number(); at < len; at += threads()) {
        double sum = 0.0;
        for (u32 i = 0; i < parts; i++) sum += part[i * len + at];
        sums[at] = sum;
    }
}
