namespace NbdKit.Faults.Mutation;

/// <summary>One context of a <see cref="MutantPlugin"/>.</summary>
internal sealed class MutantHandle(MutantPlugin plugin, NbdExportInfo info, string name) : INbdPluginHandle
{
    /// <summary>The export that fails every second block of 512 bytes, and says more about it than fits in a reply.</summary>
    public const string Sick = "sick";

    /// <summary>The export whose calls end on another thread.</summary>
    public const string Late = "late";

    private static readonly string Complaint = string.Concat(Enumerable.Repeat("it hurts\0 \U0001f9ca ", 400));

    private bool _closed;

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        Check(offset, buffer.Length);
        Span<byte> bytes = buffer.Span;
        for (int i = 0; i < bytes.Length; i++)
        {
            bytes[i] = MutantPlugin.At((ulong)offset + (uint)i);
        }
        return EndAsync();
    }

    // What is reported to be zero is not touched, but for bytes that must not be sent.
    public async ValueTask ReadSparseAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        await ReadAsync(buffer, offset, cancellationToken);
        plugin.Extents?.Invoke(offset, buffer.Length, extents);
        AddZeroes(extents);
        foreach (Extent extent in extents)
        {
            if ((extent.Status & ExtentStatus.Zero) != 0)
            {
                buffer.Span.Slice((int)(extent.Offset - offset), (int)extent.Length).Fill(0xa5);
            }
        }
    }

    public ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        Check(offset, data.Length);
        return EndAsync();
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken) => EndAsync();

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        Check(offset, length);
        return EndAsync();
    }

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        Check(offset, length);
        return EndAsync();
    }

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
    {
        Check(offset, length);
        return EndAsync();
    }

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        Check(offset, length);
        if (plugin.Extents is null)
        {
            extents.Add(offset, length, ExtentStatus.Data);
        }
        else
        {
            plugin.Extents(offset, length, extents);
            AddZeroes(extents);
        }
        return EndAsync();
    }

    public ValueTask CloseAsync()
    {
        MutationException.Require(!_closed, "a context was closed twice");
        _closed = true;
        plugin.Close();
        return default;
    }

    private async ValueTask EndAsync()
    {
        if (name == Late)
        {
            await Task.Yield();
        }
    }

    private void AddZeroes(ExtentList extents)
    {
        foreach (Extent extent in extents)
        {
            if ((extent.Status & ExtentStatus.Zero) != 0)
            {
                plugin.AddZeroes(extent.Offset, extent.Length);
            }
        }
    }

    // What does not lie inside of the export, or is nothing at all, must not come as far as a plugin.
    private void Check(long offset, long length)
    {
        if (_closed || offset < 0 || length < 1 || length > info.Size - offset)
        {
            plugin.Broken = $"a call for {length} bytes at {offset} of {info.Size} (closed: {_closed})";
        }
        if (name == Sick && (offset & 512) != 0)
        {
            throw new NbdException(NbdError.IoError, Complaint);
        }
    }
}
