using System.Buffers;

namespace NbdKit.Filters.Ahead;

/// <summary>A range that is being read ahead, or was. Its memory goes back when the last holder lets go of it.</summary>
internal sealed class ReadaheadChunk(long offset, int length)
{
    private readonly byte[] _buffer = ArrayPool<byte>.Shared.Rent(length);
    private readonly TaskCompletionSource<bool> _filled = new(TaskCreationOptions.RunContinuationsAsynchronously);

    // Whoever reads ahead, and the stream.
    private int _holders = 2;

    public long Offset { get; } = offset;

    public long End { get; } = offset + length;

    public Memory<byte> Memory => _buffer.AsMemory(0, (int)(End - Offset));

    /// <summary>Completes when it was read; false if that failed.</summary>
    public Task<bool> Filled => _filled.Task;

    public bool IsFilled => _filled.Task.IsCompletedSuccessfully && _filled.Task.Result;

    public void Complete(bool isFilled) => _filled.SetResult(isFilled);

    /// <summary>Takes hold of it; only for who knows that somebody holds it.</summary>
    public void Hold() => Interlocked.Increment(ref _holders);

    public void LetGo()
    {
        if (Interlocked.Decrement(ref _holders) == 0)
        {
            ArrayPool<byte>.Shared.Return(_buffer);
        }
    }
}
