using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit;

// The data calls and what each of them requires (nbdkit asserts these; here a caller that breaks one is told which).
public sealed partial class NextContext
{
    /// <summary>Reads: fills the whole buffer.</summary>
    /// <param name="buffer">The memory to fill; at least one byte.</param>
    /// <param name="offset">First byte to read.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is empty or not inside the export.</exception>
    /// <exception cref="InvalidOperationException">The context is not prepared, or finalized.</exception>
    /// <exception cref="NbdException">The layer failed.</exception>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (IsDirect)
        {
            if (_readVia is not null)
            {
                return _readVia.ReadAsync(buffer, offset, cancellationToken);
            }
            CheckRange(offset, buffer.Length);
            if (_plugin is not null)
            {
                return _plugin.ReadAsync(buffer, offset, cancellationToken);
            }
            if (_keptNext is not null)
            {
                return _filter!.ReadAsync(_keptNext, buffer, offset, cancellationToken);
            }
        }
        CheckRange(offset, buffer.Length);
        return Run(LayerCall.Read(buffer, offset), cancellationToken);
    }

    /// <summary>Writes all the data.</summary>
    /// <param name="data">The bytes; they must stay unchanged until the task completes.</param>
    /// <param name="offset">First byte to write.</param>
    /// <param name="flags"><see cref="RequestFlags.Fua"/> or none.</param>
    /// <param name="cancellationToken">Gives up; what was written is unknown then.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is empty or not inside the export.</exception>
    /// <exception cref="InvalidOperationException">
    /// The context is not prepared, or finalized, or the layer does not support the operation or a flag.
    /// </exception>
    /// <exception cref="NbdException">The layer failed.</exception>
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        if (IsDirect && _writeVia is not null)
        {
            return _writeVia.WriteAsync(data, offset, flags, cancellationToken);
        }
        CheckRange(offset, data.Length);
        Require(_info!.CanWrite, "write");
        CheckFlags(flags, RequestFlags.Fua);
        if (IsDirect && flags == RequestFlags.None)
        {
            if (_plugin is not null)
            {
                return _plugin.WriteAsync(data, offset, flags, cancellationToken);
            }
            if (_keptNext is not null)
            {
                return _filter!.WriteAsync(_keptNext, data, offset, flags, cancellationToken);
            }
        }
        return flags == RequestFlags.None || _info.CanFua == Support.Native
            ? Run(LayerCall.Write(data, offset, flags), cancellationToken)
            : RunAndFlushAsync(LayerCall.Write(data, offset, flags & ~RequestFlags.Fua), cancellationToken);
    }

    /// <summary>Brings all completed changes to stable storage.</summary>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="InvalidOperationException">
    /// The context is not prepared, or finalized, or the layer does not take flushes.
    /// </exception>
    /// <exception cref="NbdException">The layer failed.</exception>
    public ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        CheckUsable();
        Require(_info!.CanFlush || _info.CanFua == Support.Emulate, "flush");
        return Run(LayerCall.Flush(), cancellationToken);
    }

    /// <summary>Gives up the content of a range.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes, at least 1.</param>
    /// <param name="flags"><see cref="RequestFlags.Fua"/> or none.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is empty or not inside the export.</exception>
    /// <exception cref="InvalidOperationException">
    /// The context is not prepared, or finalized, or the layer does not support the operation or a flag.
    /// </exception>
    /// <exception cref="NbdException">The layer failed.</exception>
    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        CheckRange(offset, length);
        Require(_info!.CanTrim, "trim");
        CheckFlags(flags, RequestFlags.Fua);
        return flags == RequestFlags.None || _info.CanFua == Support.Native
            ? Run(LayerCall.Trim(offset, length, flags), cancellationToken)
            : RunAndFlushAsync(LayerCall.Trim(offset, length, flags & ~RequestFlags.Fua), cancellationToken);
    }

    /// <summary>Makes a range read as zeroes, by the layer itself or by writing zeroes to it.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes, at least 1.</param>
    /// <param name="flags">
    /// <see cref="RequestFlags.MayTrim"/>, <see cref="RequestFlags.FastZero"/> and <see cref="RequestFlags.Fua"/>.
    /// </param>
    /// <param name="cancellationToken">Gives up; which part reads as zeroes is unknown then.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is empty or not inside the export.</exception>
    /// <exception cref="InvalidOperationException">
    /// The context is not prepared, or finalized, or the layer does not support the operation or a flag.
    /// </exception>
    /// <exception cref="NbdException">
    /// The layer failed; <see cref="NbdError.NotSupported"/> only for a fast zero that would be slow.
    /// </exception>
    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        CheckRange(offset, length);
        Require(_info!.CanZero != Support.None, "zero");
        CheckFlags(flags, RequestFlags.Fua | RequestFlags.MayTrim | RequestFlags.FastZero);
        if ((flags & RequestFlags.FastZero) != 0)
        {
            Require(_info.CanFastZero, "fast zero");
        }
        return (flags & RequestFlags.Fua) == 0 || _info.CanFua == Support.Native
            ? ZeroOrWrite(offset, length, flags, cancellationToken)
            : ZeroAndFlushAsync(offset, length, flags & ~RequestFlags.Fua, cancellationToken);
    }

    /// <summary>Hints that a range will be read soon.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes, at least 1.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is empty or not inside the export.</exception>
    /// <exception cref="InvalidOperationException">
    /// The context is not prepared, or finalized, or the layer does not support the operation.
    /// </exception>
    /// <exception cref="NbdException">The layer failed.</exception>
    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
    {
        CheckRange(offset, length);
        Require(_info!.CanCache != Support.None, "cache");
        return _info.CanCache == Support.Native
            ? Run(LayerCall.Cache(offset, length), cancellationToken)
            : CacheByReadingAsync(offset, length, cancellationToken);
    }

    /// <summary>
    /// Asks what a range is made of. The answer covers at least the first byte; it may stop early, and may go beyond the
    /// range up to the end of the list's window. A layer that does not know answers that all is data.
    /// </summary>
    /// <param name="offset">First byte; must be the start of the list's window.</param>
    /// <param name="length">Number of bytes, at least 1.</param>
    /// <param name="flags"><see cref="RequestFlags.RequestOne"/> or none.</param>
    /// <param name="extents">An empty list that names the meta context, and receives the extents.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is empty or not inside the export.</exception>
    /// <exception cref="InvalidOperationException">The context is not prepared, or finalized, or a flag is not allowed.</exception>
    /// <exception cref="NbdException">The layer failed, or reported nothing.</exception>
    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        CheckRange(offset, length);
        if ((flags & ~RequestFlags.RequestOne) != 0)
        {
            throw new InvalidOperationException($"The flags {flags} are not allowed on this operation of {Backend.Name}.");
        }
        if (!_info!.CanExtents)
        {
            extents.Add(offset, length, ExtentStatus.Data);
            return default;
        }
        return CheckExtents(
            Run(LayerCall.Extents(offset, length, flags, extents), cancellationToken), offset, extents);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void CheckUsable()
    {
        if (_state is not (ContextState.Prepared or ContextState.Finalizing) || _info is null)
        {
            throw NotUsable();
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void CheckRange(long offset, long length)
    {
        CheckUsable();
        if (length <= 0 || offset < 0 || offset > _info!.Size || length > _info.Size - offset)
        {
            ThrowRange(offset, length);
        }
    }

    private void ThrowRange(long offset, long length)
        => throw new ArgumentOutOfRangeException(
            nameof(offset), $"{length} bytes at {offset} are not inside the {_info!.Size} bytes of {Backend.Name}.");

    private void Require(bool supported, string operation)
    {
        if (!supported)
        {
            throw new InvalidOperationException($"{Backend.Name} does not support {operation}: its info says so, and callers must heed it.");
        }
    }

    private void CheckFlags(RequestFlags flags, RequestFlags allowed)
    {
        if ((flags & ~allowed) != 0)
        {
            throw new InvalidOperationException($"The flags {flags} are not allowed on this operation of {Backend.Name}.");
        }
        if ((flags & RequestFlags.Fua) != 0)
        {
            Require(_info!.CanFua != Support.None, "FUA");
        }
    }
}
