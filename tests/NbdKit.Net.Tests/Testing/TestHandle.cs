namespace NbdKit.Tests.Testing;

/// <summary>One context of a <see cref="TestPlugin"/>.</summary>
internal sealed class TestHandle(TestPlugin plugin, TestExport export) : INbdPluginHandle
{
    private bool _closed;

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(export.Info);

    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        PluginCall call = Call(PluginOp.Read, offset, buffer.Length, RequestFlags.None, cancellationToken);
        await EnterAsync(call with { Buffer = buffer });
        Span<byte> known = Known(offset, buffer.Length);
        known.CopyTo(buffer.Span);
        buffer.Span[known.Length..].Clear();
    }

    // Holes are left as they are: the buffer is poisoned, so that one that is sent shows.
    public async ValueTask ReadSparseAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        PluginCall call = Call(PluginOp.Read, offset, buffer.Length, RequestFlags.None, cancellationToken);
        await EnterAsync(call with { Buffer = buffer });
        Known(offset, buffer.Length).CopyTo(buffer.Span);
        if (export.Extents is not null)
        {
            export.Extents(call, extents);
            foreach (Extent extent in extents.Where(e => (e.Status & ExtentStatus.Zero) != 0))
            {
                buffer.Span.Slice((int)(extent.Offset - offset), (int)extent.Length).Fill(0xa5);
            }
        }
    }

    public async ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        await EnterAsync(Call(PluginOp.Write, offset, data.Length, flags, cancellationToken));
        Span<byte> known = Known(offset, data.Length);
        data.Span[..known.Length].CopyTo(known);
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken)
        => EnterAsync(Call(PluginOp.Flush, 0, 0, RequestFlags.None, cancellationToken));

    public async ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        await EnterAsync(Call(PluginOp.Trim, offset, length, flags, cancellationToken));
        Known(offset, length).Clear();
    }

    public async ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        await EnterAsync(Call(PluginOp.Zero, offset, length, flags, cancellationToken));
        Known(offset, length).Clear();
    }

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => EnterAsync(Call(PluginOp.Cache, offset, length, RequestFlags.None, cancellationToken));

    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        PluginCall call = Call(PluginOp.Extents, offset, length, flags, cancellationToken);
        await EnterAsync(call);
        if (export.Extents is null)
        {
            extents.Add(offset, length, ExtentStatus.Data);
        }
        else
        {
            export.Extents(call, extents);
        }
    }

    public ValueTask CloseAsync()
    {
        Assert.That(_closed, Is.False, "a context was closed twice");
        _closed = true;
        plugin.CountClosed();
        return default;
    }

    private PluginCall Call(
        PluginOp op, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        Assert.That(_closed, Is.False, "a call on a closed context");
        return new PluginCall(op, export.Name, offset, length, flags) { CancellationToken = cancellationToken };
    }

    private ValueTask EnterAsync(PluginCall call)
    {
        plugin.Calls.Enqueue(call);
        return export.Before?.Invoke(call) ?? default;
    }

    private Span<byte> Known(long offset, long length)
        => offset >= export.Data.Length
            ? []
            : export.Data.AsSpan((int)offset, (int)Math.Min(length, export.Data.Length - offset));
}
