using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using Microsoft.Win32.SafeHandles;

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
    private FileStream? _file;
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
            ? ReadSegmentAsync(Handle, buffer, start + inSegment, cancellationToken)
            : ReadSegmentsAsync(buffer, offset, cancellationToken);
    }

    public ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        long inSegment = offset & (SegmentSize - 1);
        return data.Length <= SegmentSize - inSegment
            ? RandomAccess.WriteAsync(Handle, data, SegmentFor(offset) + inSegment, cancellationToken)
            : WriteSegmentsAsync(data, offset, cancellationToken);
    }

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

    private SafeFileHandle Handle => (Volatile.Read(ref _file) ?? Create()).SafeFileHandle;

    private FileStream Create()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (_file is null)
            {
                var options = new FileStreamOptions
                {
                    Mode = FileMode.CreateNew,
                    Access = FileAccess.ReadWrite,
                    Share = FileShare.None,
                    BufferSize = 0,
                    Options = FileOptions.Asynchronous | FileOptions.RandomAccess,
                };
                if (OperatingSystem.IsWindows())
                {
                    options.Options |= FileOptions.DeleteOnClose;
                }
                else
                {
                    options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
                }
                var file = new FileStream(Path.Combine(_directory, $"nbdkit-{Guid.NewGuid():N}.tmp"), options);
                if (!OperatingSystem.IsWindows())
                {
                    // Gone from the directory at once: not even a process that is killed leaves it behind.
                    File.Delete(file.Name);
                }
                Volatile.Write(ref _file, file);
            }
            return _file;
        }
    }

    private long SegmentFor(long offset)
    {
        long segment = offset >> SegmentShift;
        if (!_segments.TryGetValue(segment, out long start))
        {
            lock (_lock)
            {
                if (!_segments.TryGetValue(segment, out start))
                {
                    start = (long)_segments.Count << SegmentShift;
                    _segments[segment] = start;
                }
            }
        }
        return start;
    }

    private async ValueTask ReadSegmentsAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (buffer.Length > 0)
        {
            long inSegment = offset & (SegmentSize - 1);
            int count = (int)Math.Min(buffer.Length, SegmentSize - inSegment);
            if (_segments.TryGetValue(offset >> SegmentShift, out long start))
            {
                await ReadSegmentAsync(Handle, buffer[..count], start + inSegment, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                buffer.Span[..count].Clear();
            }
            buffer = buffer[count..];
            offset += count;
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private static async ValueTask ReadSegmentAsync(
        SafeFileHandle handle, Memory<byte> buffer, long position, CancellationToken cancellationToken)
    {
        while (buffer.Length > 0)
        {
            int count = await RandomAccess.ReadAsync(handle, buffer, position, cancellationToken).ConfigureAwait(false);
            if (count == 0)
            {
                buffer.Span.Clear();
                return;
            }
            buffer = buffer[count..];
            position += count;
        }
    }

    private async ValueTask WriteSegmentsAsync(
        ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        while (data.Length > 0)
        {
            long inSegment = offset & (SegmentSize - 1);
            int count = (int)Math.Min(data.Length, SegmentSize - inSegment);
            await RandomAccess.WriteAsync(Handle, data[..count], SegmentFor(offset) + inSegment, cancellationToken)
                .ConfigureAwait(false);
            data = data[count..];
            offset += count;
        }
    }
}
