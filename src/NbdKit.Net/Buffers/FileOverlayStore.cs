using System.Collections.Concurrent;

namespace NbdKit.Buffers;

/// <summary>
/// Keeps an overlay in a sparse temporary file, which is created with the first write and is gone when the store is disposed
/// of, or the process ends.
/// </summary>
/// <remarks>
/// The file takes segments of the disk one after the other as they are first written to, so that a disk of 2^63-1 bytes needs
/// no larger file than its content does: file systems limit a file to far less. Discarded space is not given back before
/// the end; it is used again when the same range is written.
/// </remarks>
internal sealed class FileOverlayStore : IOverlayStore
{
    private const int SegmentShift = 28;
    private const long SegmentSize = 1L << SegmentShift;

    private readonly ConcurrentDictionary<long, long> _segments = new();
    private readonly Lock _lock = new();
    private readonly string _directory;
    private SparseFile? _file;
    private bool _disposed;

    /// <summary>Creates a store that has no file yet.</summary>
    /// <param name="directory">Where its file will be.</param>
    public FileOverlayStore(string directory) => _directory = directory;

    /// <summary>
    /// The environment variable <c>TMPDIR</c>, or else <c>/var/tmp</c>; on Windows the user's temporary directory.
    /// </summary>
    public static string DefaultDirectory
        => OperatingSystem.IsWindows()
            ? Path.GetTempPath()
            : Environment.GetEnvironmentVariable("TMPDIR") is { Length: > 0 } directory ? directory : "/var/tmp";

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        long inSegment = offset & (SegmentSize - 1);
        return buffer.Length <= SegmentSize - inSegment && _segments.TryGetValue(offset >> SegmentShift, out long start)
            ? _file!.ReadAsync(buffer, start + inSegment, cancellationToken)
            : ReadSegmentsAsync(buffer, offset, cancellationToken);
    }

    public ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        long inSegment = offset & (SegmentSize - 1);
        return data.Length <= SegmentSize - inSegment
            ? FileFor(offset, out long start).WriteAsync(data, start + inSegment, durable: false, cancellationToken)
            : WriteSegmentsAsync(data, offset, cancellationToken);
    }

    // The space is used again when the same range is written.
    public void Discard(long offset, long length)
    {
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            _file?.Dispose();
        }
    }

    /// <summary>The file, with room for the segment of an offset, which begins at <paramref name="start"/>.</summary>
    private SparseFile FileFor(long offset, out long start)
    {
        long segment = offset >> SegmentShift;
        if (!_segments.TryGetValue(segment, out start))
        {
            lock (_lock)
            {
                ObjectDisposedException.ThrowIf(_disposed, this);
                if (!_segments.TryGetValue(segment, out start))
                {
                    start = (long)_segments.Count << SegmentShift;
                    _file ??= SparseFile.CreateTemporary(_directory, 0);
                    _file.Grow(start + SegmentSize);
                    _segments[segment] = start;
                }
            }
        }
        return _file!;
    }

    private async ValueTask ReadSegmentsAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (buffer.Length > 0)
        {
            long inSegment = offset & (SegmentSize - 1);
            int count = (int)Math.Min(buffer.Length, SegmentSize - inSegment);
            if (_segments.TryGetValue(offset >> SegmentShift, out long start))
            {
                await _file!.ReadAsync(buffer[..count], start + inSegment, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                buffer.Span[..count].Clear();
            }
            buffer = buffer[count..];
            offset += count;
        }
    }

    private async ValueTask WriteSegmentsAsync(
        ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        while (data.Length > 0)
        {
            long inSegment = offset & (SegmentSize - 1);
            int count = (int)Math.Min(data.Length, SegmentSize - inSegment);
            await FileFor(offset, out long start)
                .WriteAsync(data[..count], start + inSegment, durable: false, cancellationToken)
                .ConfigureAwait(false);
            data = data[count..];
            offset += count;
        }
    }
}
