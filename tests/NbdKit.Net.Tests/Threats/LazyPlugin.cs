namespace NbdKit.Tests.Threats;

/// <summary>A plugin that fills the first half of what it is to read, and forgets or refuses the rest.</summary>
internal sealed class LazyPlugin : INbdPlugin, INbdPluginHandle
{
    public const byte Filling = 0x11;

    public string Name => "lazy";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    public required NbdExportInfo Info { get; init; }

    public bool Throws { get; set; }

    /// <summary>The longest read or write.</summary>
    public int Longest { get; private set; }

    public bool IsClosed { get; private set; }

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(Info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        Longest = Math.Max(Longest, buffer.Length);
        buffer.Span[..(buffer.Length / 2)].Fill(Filling);
        return Throws ? throw new NbdException(NbdError.IoError, "the second half is missing") : default;
    }

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        Longest = Math.Max(Longest, data.Length);
        return default;
    }

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        extents.Add(offset, length, ExtentStatus.Data);
        return default;
    }

    public ValueTask CloseAsync()
    {
        IsClosed = true;
        return default;
    }
}
