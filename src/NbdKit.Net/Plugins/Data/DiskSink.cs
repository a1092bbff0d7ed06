using NbdKit.Buffers;

namespace NbdKit.Plugins.Data;

/// <summary>Puts bytes into a sparse array, as far as it goes and a limit on its memory allows. Zeroes take no memory.</summary>
internal sealed class DiskSink(SparseArray disk, long memoryLimit, CancellationToken cancellationToken) : IDataSink
{
    private const int PageSize = SparseArray.PageSize;

    private readonly byte[] _filled = new byte[PageSize];
    private long _memory;
    private long _page = -1;

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
