using System.Text;
using NbdKit.Transports;

namespace NbdKit.Tests.Testing;

/// <summary>
/// A client whose bytes are there when they are received: the connection runs on the thread that serves or feeds it, until a
/// layer or a limit makes it wait. So what has happened when a call of this type returns needs no waiting for.
/// </summary>
internal sealed class ScriptedTransport : Transport
{
    private readonly Lock _lock = new();
    private readonly Queue<byte> _input = [];
    private readonly MemoryStream _output = new();
    private TaskCompletionSource? _arrival;
    private bool _finished;
    private Exception? _fault;
    private ulong _lastCookie;

    /// <summary>Runs before bytes count as sent; may wait and may throw.</summary>
    public Func<CancellationToken, ValueTask>? OnSend { get; set; }

    public bool IsAborted { get; private set; }

    public bool IsClosed { get; private set; }

    /// <summary>Whether the server is waiting for bytes.</summary>
    public bool IsAwaited
    {
        get
        {
            lock (_lock)
            {
                return _arrival is not null;
            }
        }
    }

    /// <summary>What was sent since the last time.</summary>
    public byte[] TakeOutput()
    {
        lock (_lock)
        {
            byte[] bytes = _output.ToArray();
            _output.SetLength(0);
            return bytes;
        }
    }

    /// <summary>A client's bytes up to the first request.</summary>
    public static byte[] Handshake(string name = "disk", bool structured = false) =>
    [
        .. new WireBytes().U32(3).ToArray(),
        .. structured ? WireBytes.Option(Opt.StructuredReply, []) : [],
        .. WireBytes.Option(Opt.Go, WireBytes.InfoRequest(Encoding.UTF8.GetBytes(name))),
    ];

    public ScriptedTransport Request(ushort command, ulong offset = 0, uint length = 0, byte[]? payload = null)
        => Feed([.. WireBytes.Request(command, ++_lastCookie, offset, length), .. payload ?? []]);

    public ScriptedTransport Feed(params byte[] bytes)
    {
        lock (_lock)
        {
            foreach (byte one in bytes)
            {
                _input.Enqueue(one);
            }
        }
        Arrive();
        return this;
    }

    /// <summary>The client sends no more.</summary>
    public void Finish()
    {
        lock (_lock)
        {
            _finished = true;
        }
        Arrive();
    }

    /// <summary>The connection breaks.</summary>
    public void Break(Exception? fault = null)
    {
        lock (_lock)
        {
            _fault = fault ?? new IOException("The connection was reset.");
        }
        Arrive();
    }

    public override async ValueTask WaitForDataAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            Task arrival;
            lock (_lock)
            {
                if (_fault is not null)
                {
                    throw _fault;
                }
                ObjectDisposedException.ThrowIf(IsAborted, this);
                if (_input.Count > 0 || _finished)
                {
                    return;
                }
                _arrival ??= new TaskCompletionSource();
                arrival = _arrival.Task;
            }
            await arrival.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    public override async ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await WaitForDataAsync(cancellationToken).ConfigureAwait(false);
        lock (_lock)
        {
            int count = Math.Min(buffer.Length, _input.Count);
            for (int i = 0; i < count; i++)
            {
                buffer.Span[i] = _input.Dequeue();
            }
            return count;
        }
    }

    public override async ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        if (OnSend is not null)
        {
            await OnSend(cancellationToken);
        }
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(IsAborted, this);
            _output.Write(bytes.Span);
        }
    }

    public override ValueTask CloseAsync()
    {
        IsClosed = true;
        return default;
    }

    public override void Abort()
    {
        lock (_lock)
        {
            IsAborted = true;
        }
        Arrive();
    }

    private void Arrive()
    {
        TaskCompletionSource? arrival;
        lock (_lock)
        {
            (arrival, _arrival) = (_arrival, null);
        }
        // What waits goes on right here, which it does not under a synchronization context.
        SynchronizationContext? context = SynchronizationContext.Current;
        SynchronizationContext.SetSynchronizationContext(null);
        try
        {
            arrival?.TrySetResult();
        }
        finally
        {
            SynchronizationContext.SetSynchronizationContext(context);
        }
    }
}
