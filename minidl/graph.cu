// The last kernel of a graph (graph.py): it copies what a step replaced to the addresses where the step will look for
// it the next time.

// Thread i owns element i of all arrays, and copies it from from[k] to to[k]. `any` is one of the arrays: the first
// argument of a launch determines T.
extern "C" __global__ void copy_all(
    const T* any, T* const* to, const T* const* from, const int* __restrict__ offsets, int arrays)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= offsets[arrays]) return;
    int k = array_of(i, offsets, arrays), j = i - offsets[k];
    to[k][j] = from[k][j];
}
