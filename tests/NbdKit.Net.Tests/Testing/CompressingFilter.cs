using System.IO.Compression;

namespace NbdKit.Tests.Testing;

/// <summary>Shows the layer below compressed: what is below <see cref="NbdKit.Filters.GzipFilter"/> in a pair.</summary>
/// <param name="members">How many members to make of it.</param>
internal sealed class CompressingFilter(int members = 1) : INbdFilter
{
    public string Name => "compressing";

    /// <summary>Compresses bytes with the framework's gzip.</summary>
    public static byte[] Compress(ReadOnlySpan<byte> content)
    {
        if (content.IsEmpty)
        {
            // The framework makes nothing of it.
            return [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        }
        using var target = new MemoryStream();
        using (var gzip = new GZipStream(target, CompressionLevel.Fastest, leaveOpen: true))
        {
            gzip.Write(content);
        }
        return target.ToArray();
    }

    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken);
        return new Handle(members);
    }

    private sealed class Handle(int members) : INbdFilterHandle
    {
        private byte[] _data = [];

        public async ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
        {
            byte[] content = new byte[next.Info.Size];
            for (int at = 0; at < content.Length;)
            {
                int count = Math.Min(content.Length - at, 4096);
                await next.ReadAsync(content.AsMemory(at, count), at, cancellationToken);
                at += count;
            }
            int part = (content.Length / members) + 1;
            // An empty member is one too.
            _data = [.. Compress([]), .. content.Chunk(part).SelectMany(chunk => Compress(chunk)), .. new byte[700]];
        }

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
            => new(new NbdExportInfo { Size = _data.Length, Description = next.Info.Description });

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            _data.AsMemory((int)offset, buffer.Length).CopyTo(buffer);
            return default;
        }
    }
}
