using System.Runtime.CompilerServices;
using Microsoft.Extensions.ObjectPool;
using NbdKit.Buffers;
using NbdKit.Protocol;

namespace NbdKit.Server;

/// <summary>
/// A request that did not complete on the receiving loop, or that was never meant to. Pooled; owns the memory of its payload
/// and of its reply until it ends.
/// </summary>
internal sealed class PendingRequest : IThreadPoolWorkItem, IResettable
{
    private readonly Action _continue;
    private Transmission _transmission = null!;
    private RequestHeader _header;
    private ReadOnlyMemory<byte> _data;
    private Slab? _slab;
    private byte[]? _rented;

    private ExtentList? _extents;
    private ExtentList? _allExtents;
    private SparsePlan? _plan;
    private bool _isPlanned;

    // Whether the call itself builds the reply.
    private bool _replies;
    private ConfiguredValueTaskAwaitable.ConfiguredValueTaskAwaiter _awaiter;

    public PendingRequest() => _continue = Continue;

    /// <summary>Where the reply will be; empty for a block status, whose size is not known before.</summary>
    public ReplySegment Reply { get; set; }

    /// <summary>What is known of the range of a read.</summary>
    public ExtentList Extents => _extents ??= Transmission.NewProbe();

    /// <summary>
    /// As <see cref="Extents"/>, without a limit: for a layer that leaves every hole unfilled which it tells, so that none may be lost.
    /// </summary>
    public ExtentList AllExtents => _allExtents ??= new ExtentList(0, 1, maximumCount: int.MaxValue);

    /// <summary>How the reply to a read is divided.</summary>
    public SparsePlan Plan => _plan ??= new SparsePlan();

    /// <summary>The question for the extents of a read, if it is under way.</summary>
    public ValueTask? Asking { get; set; }

    /// <summary>The payload bytes that the request holds while it runs.</summary>
    public int HeldBytes { get; private set; }

    public void Begin(
        Transmission transmission, in RequestHeader header, ReadOnlyMemory<byte> data, Slab? slab, byte[]? rented, int heldBytes)
    {
        _transmission = transmission;
        _header = header;
        _data = data;
        _slab = slab;
        _slab?.Hold();
        _rented = rented;
        HeldBytes = heldBytes;
        Reply = default;
        _replies = false;
    }

    /// <summary>Takes a list of extents for one of its own.</summary>
    public void Swap(ref ExtentList extents)
    {
        ExtentList own = Extents;
        _extents = extents;
        extents = own;
    }

    /// <summary>Takes a plan that is made.</summary>
    public void Swap(ref SparsePlan plan)
    {
        SparsePlan own = Plan;
        _plan = plan;
        plan = own;
        _isPlanned = true;
    }

    /// <summary>Makes the call, here and now.</summary>
    public void Execute()
    {
        ValueTask call;
        ValueTask? asking = Asking;
        Asking = null;
        bool isPlanned = _isPlanned;
        _isPlanned = false;
        try
        {
            _replies = _header.Type == CommandType.BlockStatus || _transmission.IsChunked(_header);
            call = _header.Type switch
            {
                CommandType.BlockStatus => BlockStatusAsync(),
                CommandType.Read when _replies => _transmission.ReadInChunksAsync(_header, this, isPlanned, asking),
                CommandType.Read => _transmission.Call(_header, Reply.Bytes[^(int)_header.Length..]),
                _ => _transmission.Call(_header, _data),
            };
        }
        catch (Exception e)
        {
            End(e);
            return;
        }
        Await(call);
    }

    /// <summary>Replies when the call has completed.</summary>
    public void Await(ValueTask call)
    {
        _awaiter = call.ConfigureAwait(false).GetAwaiter();
        if (_awaiter.IsCompleted)
        {
            Continue();
        }
        else
        {
            _awaiter.UnsafeOnCompleted(_continue);
        }
    }

    /// <summary>In the pool it must not keep alive what its client had open.</summary>
    public bool TryReset()
    {
        _transmission = null!;
        return true;
    }

    private async ValueTask BlockStatusAsync()
        => Reply = await _transmission.BlockStatusAsync(_header, _data).ConfigureAwait(false);

    private void Continue()
    {
        Exception? failure = null;
        try
        {
            _awaiter.GetResult();
        }
        catch (Exception e)
        {
            failure = e;
        }
        End(failure);
    }

    private void End(Exception? failure)
    {
        _awaiter = default;
        _data = default;
        if (_allExtents?.Count > Transmission.MostExtents)
        {
            // One odd reply must not cost memory for as long as the request is pooled.
            _allExtents = null;
        }
        _slab?.Release();
        _slab = null;
        if (_rented is not null)
        {
            _transmission.Payloads.Return(_rented);
            _rented = null;
        }
        ReplySegment reply = Reply;
        Reply = default;
        if (failure is not null)
        {
            reply.Release(_transmission.Payloads);
            reply = _transmission.FailureReply(_header, failure);
        }
        else if (!_replies)
        {
            _transmission.WriteSuccess(reply.Memory.Span, _header);
        }
        _transmission.Finish(this, reply);
    }
}
