using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace NbdKit.Filters;

/// <summary>Turns the bytes of each group around, as between machines of different byte order (nbdkit-swab-filter(1)).</summary>
/// <remarks>
/// The size is rounded down to whole groups, or, if the layer below takes larger blocks only, to whole blocks where there is half a
/// group at its end. The group is the minimum block size. A request that is not made of whole groups fails with EINVAL.
/// </remarks>
public sealed class SwabFilter : INbdFilter, INbdFilterHandle
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "swab",
        "turn around the bytes in groups of 2, 4 or 8",
        [new NbdParameter("swab-bits", "bits of a group: 8 (nothing is changed), 16 (default), 32 or 64")],
        parameters => new SwabFilter
        {
            Bits = parameters.OneOf("swab-bits", ("8", 8), ("16", 16), ("32", 32), ("64", 64)) ?? 16,
        });

    /// <summary>The number of bits of a group.</summary>
    /// <value>16 by default; else 8, which changes nothing, 32 or 64.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is another number.</exception>
    public int Bits
    {
        get;
        init => field = value is 8 or 16 or 32 or 64
            ? value
            : throw new ArgumentOutOfRangeException(nameof(Bits), value, "A group has 8, 16, 32 or 64 bits.");
    }
    = 16;

    private int Group => Bits / 8;

    /// <inheritdoc/>
    public string Name => "swab";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with
        {
            Size = InGroups(next.Info.Size, next.Info.BlockSize),
            BlockSize = InGroups(next.Info.BlockSize),
            // Where the holes are is asked first, in whole groups.
            CanReadSparse = next.Info is { CanExtents: true, CanReadSparse: not Support.None } ? Support.Emulate : Support.None,
        });

    /// <inheritdoc/>
    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        RequireGroups(offset, buffer.Length);
        ValueTask reading = next.ReadAsync(buffer, offset, cancellationToken);
        if (!reading.IsCompletedSuccessfully)
        {
            return SwapAfterAsync(reading, buffer);
        }
        reading.GetAwaiter().GetResult();
        Swap(buffer.Span, buffer.Span);
        return default;
    }

    /// <inheritdoc/>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        RequireGroups(offset, data.Length);
        // The caller's data may not be changed.
        byte[] copy = ArrayPool<byte>.Shared.Rent(data.Length);
        try
        {
            Swap(data.Span, copy);
            await next.WriteAsync(copy.AsMemory(0, data.Length), offset, flags, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(copy);
        }
    }

    /// <inheritdoc/>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        RequireGroups(offset, length);
        return next.TrimAsync(offset, length, flags, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        RequireGroups(offset, length);
        return next.ZeroAsync(offset, length, flags, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        // Half a group of zeroes is no zeroes once it is turned around.
        => Group == 1
            ? next.ExtentsAsync(offset, length, flags, extents, cancellationToken)
            : next.ExtentsAlignedAsync(offset, length, Group, extents, cancellationToken);

    bool INbdFilterHandle.KeepsNext => true;

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask SwapAfterAsync(ValueTask reading, Memory<byte> buffer)
    {
        await reading.ConfigureAwait(false);
        Swap(buffer.Span, buffer.Span);
    }

    private void Swap(ReadOnlySpan<byte> from, Span<byte> to)
    {
        to = to[..from.Length];
        switch (Bits)
        {
            case 16:
                BinaryPrimitives.ReverseEndianness(
                    MemoryMarshal.Cast<byte, ushort>(from), MemoryMarshal.Cast<byte, ushort>(to));
                break;
            case 32:
                BinaryPrimitives.ReverseEndianness(MemoryMarshal.Cast<byte, uint>(from), MemoryMarshal.Cast<byte, uint>(to));
                break;
            case 64:
                BinaryPrimitives.ReverseEndianness(MemoryMarshal.Cast<byte, ulong>(from), MemoryMarshal.Cast<byte, ulong>(to));
                break;
            default:
                from.CopyTo(to);
                break;
        }
    }

    private void RequireGroups(long offset, long length)
    {
        if (((offset | length) & (Group - 1)) != 0)
        {
            throw new NbdException(
                NbdError.InvalidArgument, $"{length} bytes at {offset} are not made of whole groups of {Group} bytes");
        }
    }

    private long InGroups(long size, BlockSize below)
        // The part of a block that a disk may end with can be read as a whole only: if some of it is cut off, all of it is.
        => size % Group == 0 ? size : size & -Math.Max(Group, below.Minimum);

    private BlockSize InGroups(BlockSize below)
    {
        if (Group <= Math.Max(1, below.Minimum))
        {
            return below;
        }
        if (!below.IsKnown)
        {
            return new BlockSize(Group, 4096);
        }
        long maximum = below.Maximum == BlockSize.Unlimited ? BlockSize.Unlimited : below.Maximum & -Group;
        return new BlockSize(Group, below.Preferred, maximum);
    }
}
