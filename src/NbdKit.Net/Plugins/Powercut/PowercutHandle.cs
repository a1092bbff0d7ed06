namespace NbdKit.Plugins.Powercut;

/// <summary>One context of a <see cref="PowercutPlugin"/>. It ends with the next reboot.</summary>
internal sealed class PowercutHandle(PowercutPlugin plugin, PowercutDisk disk) : INbdPluginHandle
{
    public int Generation { get; } = disk.Generation;

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(disk.Info);

    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        await plugin.WatchAsync().ConfigureAwait(false);
        await disk.ReadAsync(this, buffer, offset, cancellationToken).ConfigureAwait(false);
    }

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => ChangeAsync(JournalKind.Write, offset, data.Length, data, flags, cancellationToken);

    public async ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        await plugin.WatchAsync().ConfigureAwait(false);
        await disk.FlushAsync(this, cancellationToken).ConfigureAwait(false);
    }

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => ChangeAsync(JournalKind.Trim, offset, length, default, flags, cancellationToken);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => ChangeAsync(
            (flags & RequestFlags.MayTrim) != 0 ? JournalKind.Trim : JournalKind.Zero,
            offset,
            length,
            default,
            flags,
            cancellationToken);

    private async ValueTask ChangeAsync(
        JournalKind kind,
        long offset,
        long length,
        ReadOnlyMemory<byte> data,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        await plugin.WatchAsync().ConfigureAwait(false);
        await disk.ChangeAsync(this, kind, offset, length, data, (flags & RequestFlags.Fua) != 0, cancellationToken)
            .ConfigureAwait(false);
    }
}
