using System.Collections.Concurrent;

namespace NbdKit.Tests.Testing;

/// <summary>The largest disk there is: reads as zeroes, forgets writes, remembers what was asked of it.</summary>
internal sealed class EndlessPlugin : INbdPlugin, INbdPluginHandle
{
    public string Name => "endless";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    public NbdExportInfo Info { get; init; } = new() { Size = long.MaxValue, CanWrite = true, CanFlush = true };

    public ConcurrentQueue<(string Call, long Offset, long Length, RequestFlags Flags)> Calls { get; } = [];

    /// <summary>The writes that had other bytes than zeroes.</summary>
    public int WritesOfData { get; private set; }

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(Info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        Calls.Enqueue(("read", offset, buffer.Length, RequestFlags.None));
        buffer.Span.Clear();
        return default;
    }

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        Calls.Enqueue(("write", offset, data.Length, flags));
        WritesOfData += data.Span.ContainsAnyExcept((byte)0) ? 1 : 0;
        return default;
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        Calls.Enqueue(("flush", 0, 0, RequestFlags.None));
        return default;
    }
}
