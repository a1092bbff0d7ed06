using System.Runtime.InteropServices;

namespace NbdKit.Layers;

/// <summary>One data call on a layer, so that gates, counting and dispatch are written once for all of them.</summary>
internal readonly struct LayerCall
{
    private readonly LayerOperation _operation;
    private readonly RequestFlags _flags;
    private readonly ReadOnlyMemory<byte> _memory;
    private readonly long _offset;
    private readonly long _length;
    private readonly ExtentList? _extents;

    private LayerCall(
        LayerOperation operation, ReadOnlyMemory<byte> memory, long offset, long length, RequestFlags flags,
        ExtentList? extents = null)
    {
        _operation = operation;
        _memory = memory;
        _offset = offset;
        _length = length;
        _flags = flags;
        _extents = extents;
    }

    public LayerOperation Operation => _operation;

    public RequestFlags Flags => _flags;

    public long Offset => _offset;

    public long Length => _length;

    /// <summary>The bytes that a write brings, or the buffer that a read fills; empty for all else.</summary>
    public ReadOnlyMemory<byte> Memory => _memory;

    /// <summary>The list that receives the extents, or null.</summary>
    public ExtentList? Answer => _extents;

    public static LayerCall Read(Memory<byte> buffer, long offset)
        => new(LayerOperation.Read, buffer, offset, buffer.Length, RequestFlags.None);

    public static LayerCall ReadSparse(Memory<byte> buffer, long offset, ExtentList extents)
        => new(LayerOperation.ReadSparse, buffer, offset, buffer.Length, RequestFlags.None, extents);

    public static LayerCall Write(ReadOnlyMemory<byte> data, long offset, RequestFlags flags)
        => new(LayerOperation.Write, data, offset, data.Length, flags);

    public static LayerCall Flush() => new(LayerOperation.Flush, default, 0, 0, RequestFlags.None);

    public static LayerCall Trim(long offset, long length, RequestFlags flags)
        => new(LayerOperation.Trim, default, offset, length, flags);

    public static LayerCall Zero(long offset, long length, RequestFlags flags)
        => new(LayerOperation.Zero, default, offset, length, flags);

    public static LayerCall Cache(long offset, long length)
        => new(LayerOperation.Cache, default, offset, length, RequestFlags.None);

    public static LayerCall Extents(long offset, long length, RequestFlags flags, ExtentList extents)
        => new(LayerOperation.Extents, default, offset, length, flags, extents);

    /// <summary>The same call elsewhere, with other flags and other data.</summary>
    public LayerCall With(long offset, RequestFlags flags, ReadOnlyMemory<byte> memory)
        => new(_operation, memory, offset, _length, flags, _extents);

    public ValueTask Invoke(INbdPluginHandle plugin, CancellationToken cancellationToken) => _operation switch
    {
        LayerOperation.Read => plugin.ReadAsync(MemoryMarshal.AsMemory(_memory), _offset, cancellationToken),
        LayerOperation.ReadSparse =>
            plugin.ReadSparseAsync(MemoryMarshal.AsMemory(_memory), _offset, _extents!, cancellationToken),
        LayerOperation.Write => plugin.WriteAsync(_memory, _offset, _flags, cancellationToken),
        LayerOperation.Flush => plugin.FlushAsync(cancellationToken),
        LayerOperation.Trim => plugin.TrimAsync(_offset, _length, _flags, cancellationToken),
        LayerOperation.Zero => plugin.ZeroAsync(_offset, _length, _flags, cancellationToken),
        LayerOperation.Cache => plugin.CacheAsync(_offset, _length, cancellationToken),
        _ => plugin.ExtentsAsync(_offset, _length, _flags, _extents!, cancellationToken),
    };

    /// <summary>
    /// Makes the call on a chain that may offer less than the client was told, where that is allowed: hints are dropped, a
    /// fast zero is declined.
    /// </summary>
    public ValueTask Invoke(NextContext next, CancellationToken cancellationToken)
    {
        switch (_operation)
        {
            case LayerOperation.Read:
                return next.ReadAsync(MemoryMarshal.AsMemory(_memory), _offset, cancellationToken);
            case LayerOperation.ReadSparse:
                return next.ReadSparseAsync(MemoryMarshal.AsMemory(_memory), _offset, _extents!, cancellationToken);
            case LayerOperation.Write:
                return next.WriteAsync(_memory, _offset, _flags, cancellationToken);
            case LayerOperation.Flush:
                return next.FlushAsync(cancellationToken);
            case LayerOperation.Trim:
                return next.Info.CanTrim ? next.TrimAsync(_offset, _length, _flags, cancellationToken) : default;
            case LayerOperation.Zero:
                return (_flags & RequestFlags.FastZero) == 0 || next.Info.CanFastZero
                    ? next.ZeroAsync(_offset, _length, _flags, cancellationToken)
                    : throw new NbdException(NbdError.NotSupported, $"{next.Backend.Name} has no fast zeroes");
            case LayerOperation.Cache:
                return next.Info.CanCache == Support.None ? default : next.CacheAsync(_offset, _length, cancellationToken);
            default:
                return next.ExtentsAsync(_offset, _length, _flags, _extents!, cancellationToken);
        }
    }

    public ValueTask Invoke(INbdFilterHandle filter, NextContext next, CancellationToken cancellationToken)
        => _operation switch
        {
            LayerOperation.Read =>
                filter.ReadAsync(next, MemoryMarshal.AsMemory(_memory), _offset, cancellationToken),
            LayerOperation.ReadSparse =>
                filter.ReadSparseAsync(next, MemoryMarshal.AsMemory(_memory), _offset, _extents!, cancellationToken),
            LayerOperation.Write => filter.WriteAsync(next, _memory, _offset, _flags, cancellationToken),
            LayerOperation.Flush => filter.FlushAsync(next, cancellationToken),
            LayerOperation.Trim => filter.TrimAsync(next, _offset, _length, _flags, cancellationToken),
            LayerOperation.Zero => filter.ZeroAsync(next, _offset, _length, _flags, cancellationToken),
            LayerOperation.Cache => filter.CacheAsync(next, _offset, _length, cancellationToken),
            _ => filter.ExtentsAsync(next, _offset, _length, _flags, _extents!, cancellationToken),
        };
}
