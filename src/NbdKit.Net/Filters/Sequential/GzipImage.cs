using System.Buffers;
using System.IO.Compression;

namespace NbdKit.Filters.Sequential;

/// <summary>A disk that was decompressed, whole.</summary>
internal sealed class GzipImage : IAsyncDisposable
{
    private const int BufferBytes = 1 << 20;

    // The framework takes a member that ends too early for a complete one. So one more member is put after the last: if its
    // content comes out, what is before it was complete. If the framework never asked for it, there is something else after
    // the last member, which was complete then, too.
    private const int EndBytes = 4096;
    private const byte EndByte = 0xA5;

    private GzipImage(ScratchDisk disk, string? description)
    {
        Disk = disk;
        Description = description;
    }

    public ScratchDisk Disk { get; }

    /// <summary>The description of the compressed disk.</summary>
    public string? Description { get; }

    /// <summary>Decompresses all of an opened disk.</summary>
    /// <exception cref="NbdException">It is not compressed with gzip, is damaged, or becomes too large.</exception>
    public static async ValueTask<GzipImage> UnpackAsync(NextContext next, ScratchStore store, CancellationToken cancellationToken)
    {
        var source = new SourceStream(next, MakeEnd());
        await using (source.ConfigureAwait(false))
        {
            ReadOnlyMemory<byte> start = await source.PeekAsync(cancellationToken).ConfigureAwait(false);
            if (!start.Span.StartsWith((ReadOnlySpan<byte>)[0x1F, 0x8B, 8]))
            {
                throw new NbdException(NbdError.InvalidArgument, "the disk is not compressed with gzip");
            }
            var disk = new ScratchDisk(store);
            try
            {
                await CopyAsync(source, disk, cancellationToken).ConfigureAwait(false);
                return new GzipImage(disk, next.Info.Description);
            }
            catch (InvalidDataException e)
            {
                await disk.DisposeAsync().ConfigureAwait(false);
                throw new NbdException(NbdError.IoError, $"the disk cannot be decompressed: its gzip data is damaged after {disk.Length} bytes of output", e);
            }
            catch
            {
                await disk.DisposeAsync().ConfigureAwait(false);
                throw;
            }
        }
    }

    public ValueTask DisposeAsync() => Disk.DisposeAsync();

    private static async ValueTask CopyAsync(SourceStream source, ScratchDisk disk, CancellationToken cancellationToken)
    {
        // Goes on with the next member after the end of each, and checks length and checksum of all that end.
        var gzip = new GZipStream(source, CompressionMode.Decompress);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(BufferBytes);
        await using (gzip.ConfigureAwait(false))
        {
            try
            {
                int held = 0;
                while (true)
                {
                    int count = await gzip.ReadAtLeastAsync(
                        buffer.AsMemory(held, BufferBytes - held), BufferBytes - held, throwOnEndOfStream: false, cancellationToken)
                        .ConfigureAwait(false);
                    int total = held + count;
                    bool isEnd = total < BufferBytes;
                    held = isEnd && !source.HasServedEpilogue ? 0 : Math.Min(total, EndBytes);
                    await disk.AppendAsync(buffer.AsMemory(0, total - held), cancellationToken).ConfigureAwait(false);
                    if (isEnd)
                    {
                        Require(held == 0 || IsEnd(buffer.AsSpan(total - held, held)));
                        return;
                    }
                    buffer.AsSpan(total - held, held).CopyTo(buffer);
                }
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }
        }
    }

    private static void Require(bool isComplete)
    {
        if (!isComplete)
        {
            throw new InvalidDataException("The last member is not complete.");
        }
    }

    private static bool IsEnd(ReadOnlySpan<byte> held) => held.Length == EndBytes && !held.ContainsAnyExcept(EndByte);

    private static byte[] MakeEnd()
    {
        byte[] end = new byte[EndBytes];
        end.AsSpan().Fill(EndByte);
        using var target = new MemoryStream();
        using (var gzip = new GZipStream(target, CompressionLevel.Optimal, leaveOpen: true))
        {
            gzip.Write(end);
        }
        return target.ToArray();
    }
}
