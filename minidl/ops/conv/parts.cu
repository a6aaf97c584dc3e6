// The sum over the parts of a weight gradient; parts.py explains where they come from.

const int WEIGHTS = 8, MOST_ROWS = 64;  // a block has WEIGHTS x rows threads, rows = blockDim.y

// total[i] = sum over p of parts[p, i], parts (P, size). A block owns WEIGHTS neighbouring numbers of total. Thread
// (column, row) adds every rows-th part of number `column`, starting with part `row`, so that a layer with few weights
// also has many threads, and each of them few parts. It reads eight parts before it adds the first, to wait for memory
// once and not eight times. Row 0 then adds the sums of the other rows, in order. WEIGHTS neighbours are 32 bytes, the
// least that a GPU reads from memory.
extern "C" __global__ void add_parts(const T* __restrict__ parts, T* __restrict__ total, int P, int size)
{
    __shared__ T of_row[MOST_ROWS][WEIGHTS];
    int column = threadIdx.x, row = threadIdx.y, i = blockIdx.x * WEIGHTS + column;
    T sum = T(0);
    int rows = blockDim.y, end = i < size ? P : 0;
    #pragma unroll 8
    for (int p = row; p < end; p += rows) sum += parts[p * size + i];
    of_row[row][column] = sum;
    __syncthreads();  // the sums of all rows are stored
    if (row > 0 || i >= size) return;
    for (int other = 1; other < rows; ++other) sum += of_row[other][column];
    total[i] = sum;
}
