namespace NbdKit.Copy;

/// <summary>Takes everything and keeps nothing.</summary>
internal sealed class NullTarget : CopyTarget
{
    public override bool WantsZeroes => false;

    public override ValueTask WriteAsync(
        int lane, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken) => default;

    public override ValueTask ZeroAsync(int lane, long offset, long length, CancellationToken cancellationToken) => default;

    public override ValueTask ZeroAsync(
        int lane, ReadOnlyMemory<byte> zeroes, long offset, CancellationToken cancellationToken) => default;
}
