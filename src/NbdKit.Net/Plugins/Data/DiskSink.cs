using NbdKit.Buffers;

namespace NbdKit.Plugins.Data;

/// <summary>Puts bytes into a sparse array, as far as it goes and a limit on its memory allows. Zeroes take no memory.</summary>
internal sealed class DiskSink(SparseArray disk, long memoryLimit, CancellationToken cancellationToken) : IDataSink
{
    private const int PageSize = SparseArray.PageSize;

    // Rounds of at least 64 KiB, or nothing but zeroes: more would be hours, or a disk beyond any memory.
    private const long MostSteps = 1L << 26;

    private readonly byte[] _filled = new byte[PageSize];
    private long _memory;
    private long _page = -1;
    private long _steps;

    public void Step()
    {
        if ((++_steps & 0xffff) == 0)
        {
            cancellationToken.ThrowIfCancellationRequested();
        }
        if (_steps > MostSteps)
        {
            throw new NbdException(NbdError.InvalidArgument, "data: what is repeated has too many rounds to be put together");
        }
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        while (data.Length > 0)
        {
            int count = (int)Math.Min(PageSize - (offset & (PageSize - 1)), data.Length);
            if (data[..count].ContainsAnyExcept((byte)0))
            {
                Charge(offset);
                disk.Write(offset, data[..count]);
            }
            data = data[count..];
            offset += count;
        }
    }

    public void Fill(long offset, byte value, long count)
    {
        _filled.AsSpan().Fill(value);
        for (; count > 0 && value != 0;)
        {
            int part = (int)Math.Min(PageSize - (offset & (PageSize - 1)), count);
            Charge(offset);
            disk.Write(offset, _filled.AsSpan(0, part));
            offset += part;
            count -= part;
        }
    }

    private void Charge(long offset)
    {
        long page = offset / PageSize;
        if (page == _page)
        {
            return;
        }
        cancellationToken.ThrowIfCancellationRequested();
        _page = page;
        _memory += PageSize;
        if (_memory > memoryLimit)
        {
            throw new NbdException(
                NbdError.OutOfMemory, $"data: the disk takes more than the {memoryLimit} bytes of memory that it may");
        }
    }
}
