using System.Buffers.Binary;

namespace NbdKit.Plugins;

/// <summary>The time, told anew with each read: 8 bytes of seconds, 4 of microseconds, big-endian.</summary>
/// <param name="clock">Where it comes from.</param>
/// <param name="since">The clock's time stamp since when, or null for the start of 1970.</param>
internal sealed class InfoClock(TimeProvider clock, long? since) : INbdPluginHandle
{
    private const int Length = 12;

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => new(new NbdExportInfo { Size = Length, CanCache = Support.Native });

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        long ticks = (since is { } start ? clock.GetElapsedTime(start) : clock.GetUtcNow() - DateTimeOffset.UnixEpoch).Ticks;
        Span<byte> time = stackalloc byte[Length];
        BinaryPrimitives.WriteInt64BigEndian(time, ticks / TimeSpan.TicksPerSecond);
        BinaryPrimitives.WriteInt32BigEndian(
            time[8..], (int)(ticks % TimeSpan.TicksPerSecond / TimeSpan.TicksPerMicrosecond));
        time.Slice((int)offset, buffer.Length).CopyTo(buffer.Span);
        return default;
    }
}
