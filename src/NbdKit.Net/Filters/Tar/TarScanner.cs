using NbdKit.Filters.Partition;

namespace NbdKit.Filters.Tar;

/// <summary>
/// Finds the files in a tar archive, one after the other, by their headers alone: the old format, ustar, GNU tar's and pax.
/// Nothing in the archive is trusted. What it takes is bounded: memory by a few constants, and time by the number of
/// headers, by the limit, and by the token.
/// </summary>
internal sealed class TarScanner
{
    private const int WindowBlocks = 32;
    private const int LargestAttributes = 1 << 20;
    private const int MostHeaders = 1_000_000;

    private readonly SectorReader _archive;
    private readonly long _size;
    private readonly long _limit;
    private readonly byte[] _window = new byte[WindowBlocks * TarHeader.BlockSize];
    private long _windowStart;
    private int _windowLength;
    private long _at;
    private int _headers;

    /// <param name="archive">The layer that holds the archive.</param>
    /// <param name="limit">No header is looked for from this offset on; null for no limit.</param>
    public TarScanner(NextContext archive, long? limit)
    {
        _archive = new SectorReader(archive, TarHeader.BlockSize);
        _size = archive.Info.Size;
        _limit = limit ?? long.MaxValue;
    }

    /// <summary>Whether the scan ended at the limit, and not at the end of the archive.</summary>
    public bool HitLimit { get; private set; }

    /// <summary>Finds the next file.</summary>
    /// <returns>The file, or null at the end of the archive, or at the limit.</returns>
    /// <exception cref="NbdException">The archive is damaged, or is none (EINVAL).</exception>
    public async ValueTask<TarMember?> NextAsync(CancellationToken cancellationToken)
    {
        var attributes = new TarAttributes();
        while (true)
        {
            // Some programs leave out the blocks of zeroes at the end.
            if (_at == _size || await IsEndAsync(cancellationToken).ConfigureAwait(false))
            {
                return null;
            }
            long start = _at;
            if (!TarHeader.TryParse(Block(), out TarHeader header))
            {
                throw NotAHeader(start);
            }
            _at += TarHeader.BlockSize;
            for (bool more = header.HasMore; more; more = Block()[504] == 1, _at += TarHeader.BlockSize)
            {
                await FillAsync(cancellationToken).ConfigureAwait(false);
            }
            bool describesNext = header.Type is 'x' or 'g' or 'L' or 'K';
            long size = describesNext || header.Type == '1' ? header.Size : attributes.Size ?? header.Size;
            if (size > _size - _at)
            {
                throw Damaged($"what the header at {start} stands for has {size} bytes, and does not end inside the archive");
            }
            long content = _at;
            Skip(size);
            if (header.Type is 'x' or 'L')
            {
                await ReadAsync(header.Type, content, size, attributes, cancellationToken).ConfigureAwait(false);
            }
            else if (!describesNext)
            {
                // Before there was a type for directories they were known by their names.
                string name = attributes.Name ?? header.Name;
                if (header.Type is '7' or 'S' || (header.Type == '0' && !name.EndsWith('/')))
                {
                    return new TarMember(name, content, size, header.Type == 'S' || attributes.IsSparse);
                }
                attributes = new TarAttributes();
            }
        }
    }

    private async ValueTask<bool> IsEndAsync(CancellationToken cancellationToken)
    {
        if (_at >= _limit)
        {
            HitLimit = true;
            return true;
        }
        await FillAsync(cancellationToken).ConfigureAwait(false);
        return !Block().ContainsAnyExcept((byte)0);
    }

    /// <summary>The block at the position; it was filled.</summary>
    private ReadOnlySpan<byte> Block() => _window.AsSpan((int)(_at - _windowStart), TarHeader.BlockSize);

    /// <summary>Sees to it that the block at the position is in the window.</summary>
    private async ValueTask FillAsync(CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (++_headers > MostHeaders)
        {
            throw new NbdException(
                NbdError.InvalidArgument, $"the archive has more than {MostHeaders} headers, which is more than are looked at");
        }
        if (TarHeader.BlockSize > _size - _at)
        {
            throw Damaged("it ends inside a header");
        }
        if (_at < _windowStart || _at + TarHeader.BlockSize > _windowStart + _windowLength)
        {
            _windowLength = 0;
            int length = (int)Math.Min(_window.Length, (_size - _at) / TarHeader.BlockSize * TarHeader.BlockSize);
            await _archive.ReadAsync(_at / TarHeader.BlockSize, _window.AsMemory(0, length), cancellationToken)
                .ConfigureAwait(false);
            (_windowStart, _windowLength) = (_at, length);
        }
    }

    private async ValueTask ReadAsync(
        char type, long content, long size, TarAttributes attributes, CancellationToken cancellationToken)
    {
        if (size > LargestAttributes)
        {
            throw Damaged($"the attributes at {content} have {size} bytes");
        }
        byte[] bytes = new byte[size];
        await _archive.ReadAsync(content / TarHeader.BlockSize, bytes, cancellationToken).ConfigureAwait(false);
        if (type == 'L')
        {
            attributes.SetName(bytes);
        }
        else if (!attributes.TryAdd(bytes))
        {
            throw Damaged($"the pax header at {content} cannot be read");
        }
    }

    /// <summary>Moves behind a content, which is followed by zeroes up to a whole block.</summary>
    private void Skip(long size)
    {
        _at += size;
        long padding = -_at & (TarHeader.BlockSize - 1);
        _at = padding > _size - _at ? _size : _at + padding;
    }

    private NbdException NotAHeader(long at)
    {
        if (at > 0)
        {
            return Damaged($"there is no header at {at}");
        }
        ReadOnlySpan<byte> gzip = [0x1F, 0x8B];
        ReadOnlySpan<byte> xz = [0xFD, 0x37, 0x7A, 0x58, 0x5A];
        return new NbdException(
            NbdError.InvalidArgument,
            Block().StartsWith(gzip) || Block().StartsWith(xz)
                ? "the tar archive is compressed: put a filter that decompresses it below"
                : "this is not a tar archive");
    }

    private static NbdException Damaged(string what) => new(NbdError.InvalidArgument, $"the tar archive is damaged: {what}");
}
