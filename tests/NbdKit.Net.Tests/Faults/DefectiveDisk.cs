namespace NbdKit.Tests.Faults;

/// <summary>A disk in memory that says that several connections may use it as one, and has a defect.</summary>
/// <param name="defect">The defect.</param>
/// <param name="random">Where it shows, if not everywhere.</param>
internal sealed class DefectiveDisk(DiskDefect defect, Random random) : INbdPlugin
{
    private const int BlockSize = BlockHistory.BlockSize;
    private const int Density = 20;

    private readonly byte[] _content = new byte[(SharedDiskWork.Blocks + 1) * BlockSize];
    private readonly byte[] _stable = new byte[(SharedDiskWork.Blocks + 1) * BlockSize];

    public string Name => "defective";

    // What it does is the same each time.
    public ThreadModel ThreadModel => ThreadModel.SerializeAllRequests;

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(new Handle(this, defect, random));

    /// <summary>What a power cut leaves of the first blocks.</summary>
    public void Cut(Span<byte> image) => _stable.AsSpan(0, image.Length).CopyTo(image);

    private static IEnumerable<int> BlocksOf(long offset, int length)
        => Enumerable.Range((int)offset / BlockSize, length / BlockSize);

    private sealed class Handle(DefectiveDisk disk, DiskDefect defect, Random random) : INbdPluginHandle
    {
        private readonly Dictionary<int, byte[]> _kept = [];
        private readonly HashSet<int> _unflushed = [];

        public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
        {
            Size = disk._content.Length,
            CanWrite = true,
            CanFlush = true,
            CanFua = Support.Native,
            CanMultiConn = true,
        });

        public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            foreach (int block in BlocksOf(offset, buffer.Length))
            {
                Span<byte> part = buffer.Span.Slice((block * BlockSize) - (int)offset, BlockSize);
                if (!_kept.TryGetValue(block, out byte[]? content))
                {
                    content = Of(disk._content, block).ToArray();
                    if (defect == DiskDefect.KeepsReads)
                    {
                        _kept[block] = content;
                    }
                }
                content.CopyTo(part);
            }
            return default;
        }

        public ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        {
            bool isHere = random.Next(Density) == 0;
            if (isHere && defect == DiskDefect.LosesWrites)
            {
                return default;
            }
            int last = (int)(offset + data.Length) / BlockSize - 1;
            foreach (int block in BlocksOf(offset, data.Length))
            {
                ReadOnlySpan<byte> part = data.Span.Slice((block * BlockSize) - (int)offset, BlockSize);
                if (isHere && defect == DiskDefect.Tears && block == last)
                {
                    part = part[..(BlockSize / 2)];
                }
                Write(isHere && defect == DiskDefect.Misplaces ? block + 1 : block, part);
            }
            if ((flags & RequestFlags.Fua) != 0 && defect != DiskDefect.IgnoresFua)
            {
                Flush(BlocksOf(offset, data.Length));
            }
            return default;
        }

        public ValueTask FlushAsync(CancellationToken cancellationToken)
        {
            Flush(defect is DiskDefect.FlushesOwn or DiskDefect.KeepsWrites ? [.. _unflushed] : BlocksOf(0, disk._content.Length));
            return default;
        }

        private static Span<byte> Of(byte[] content, int block) => content.AsSpan(block * BlockSize, BlockSize);

        private void Write(int block, ReadOnlySpan<byte> part)
        {
            _unflushed.Add(block);
            if (defect is DiskDefect.KeepsReads or DiskDefect.KeepsWrites)
            {
                _kept[block] = part.ToArray();
            }
            if (defect != DiskDefect.KeepsWrites)
            {
                part.CopyTo(Of(disk._content, block));
            }
        }

        private void Flush(IEnumerable<int> blocks)
        {
            foreach (int block in blocks)
            {
                if (defect == DiskDefect.KeepsWrites && _kept.Remove(block, out byte[]? kept))
                {
                    kept.CopyTo(Of(disk._content, block));
                }
                Of(disk._content, block).CopyTo(Of(disk._stable, block));
                _unflushed.Remove(block);
            }
        }
    }
}
