using NbdKit.Layers;

namespace NbdKit.Plugins.Powercut;

// Images, and going on from one.
internal sealed partial class PowercutDisk
{
    // Those that are read from the chain and must not see it change.
    private PowercutImage[] _images = [];

    /// <summary>The alignment that the chain wants, a power of two.</summary>
    public int Grain => (int)Math.Max(1, _chain.Info.BlockSize.Minimum);

    /// <summary>Freezes what a power cut leaves. A flush that is under way comes before it.</summary>
    public async ValueTask<PowercutImage> CutAsync(int seed, CancellationToken cancellationToken)
    {
        await _stable.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            PowercutImage image = Freeze(seed);
            Volatile.Write(ref _images, [.. _images, image]);
            return image;
        }
        finally
        {
            _stable.Release();
        }
    }

    /// <summary>Cuts the power and goes on from what that leaves.</summary>
    public async ValueTask RebootAsync(int seed, CancellationToken cancellationToken)
    {
        await _stable.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await RestoreAsync(Freeze(seed), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _stable.Release();
        }
    }

    /// <summary>Goes on from an image.</summary>
    public async ValueTask RebootAsync(PowercutImage image, CancellationToken cancellationToken)
    {
        await _stable.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (!_images.Contains(image))
            {
                throw new InvalidOperationException("powercut: the image is disposed of, or is one of another plugin.");
            }
            await RestoreAsync(image, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _stable.Release();
        }
    }

    public async ValueTask ReadImageAsync(
        PowercutImage image, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        await _stable.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            ObjectDisposedException.ThrowIf(!_images.Contains(image), image);
            await image.FillAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _stable.Release();
        }
    }

    public async ValueTask ForgetAsync(PowercutImage image)
    {
        await _stable.WaitAsync().ConfigureAwait(false);
        Volatile.Write(ref _images, [.. _images.Where(other => other != image)]);
        _stable.Release();
    }

    /// <summary>Reads the chain, in the blocks that it takes.</summary>
    public async ValueTask ReadChainAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        long start = offset & -(long)Grain;
        long end = Math.Min(Info.Size, (offset + buffer.Length + Grain - 1) & -(long)Grain);
        if (end - start == buffer.Length)
        {
            await _chain.ReadInPiecesAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
            return;
        }
        byte[] blocks = new byte[end - start];
        await _chain.ReadInPiecesAsync(blocks, start, cancellationToken).ConfigureAwait(false);
        blocks.AsMemory((int)(offset - start), buffer.Length).CopyTo(buffer);
    }

    /// <summary>Where a range of zeroes in the chain ends that begins at an offset; the offset itself if there is none.</summary>
    public async ValueTask<long> EndOfHoleAsync(long offset, long end, CancellationToken cancellationToken)
    {
        if (!_chain.Info.CanExtents || end - offset <= PieceBytes)
        {
            return offset;
        }
        var extents = new ExtentList(offset, end);
        await _chain.ExtentsAsync(offset, end - offset, RequestFlags.RequestOne, extents, cancellationToken).ConfigureAwait(false);
        return (extents[0].Status & ExtentStatus.Zero) != 0 ? extents[0].End : offset;
    }

    private PowercutImage Freeze(int seed)
    {
        lock (_lock)
        {
            return new PowercutImage(this, seed, _journal.ToArray());
        }
    }

    /// <summary>A range of the chain is about to change: images keep what they need of it.</summary>
    private async ValueTask KeepForImagesAsync(JournalRange range, PowercutImage? except, CancellationToken cancellationToken)
    {
        foreach (PowercutImage image in _images)
        {
            if (image != except)
            {
                await image.KeepAsync(range, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async ValueTask RestoreAsync(PowercutImage image, CancellationToken cancellationToken)
    {
        byte[] buffer = new byte[Math.Min(PieceBytes, Info.Size)];
        // The image may lose its base on the way: what was written of it reads the same, whatever is applied to it again.
        foreach ((JournalRange range, bool isZero) in image.Changes(PieceBytes))
        {
            await KeepForImagesAsync(range, image, cancellationToken).ConfigureAwait(false);
            if (isZero)
            {
                await ZeroChainAsync(range, mayTrim: true, cancellationToken).ConfigureAwait(false);
                continue;
            }
            Memory<byte> part = buffer.AsMemory(0, (int)(range.End - range.Start));
            await image.FillAsync(part, range.Start, cancellationToken).ConfigureAwait(false);
            await WriteChainAsync(part, range.Start, cancellationToken).ConfigureAwait(false);
        }
        await FlushChainAsync(cancellationToken).ConfigureAwait(false);
        lock (_lock)
        {
            _journal.Clear();
            Volatile.Write(ref _generation, _generation + 1);
        }
    }
}
