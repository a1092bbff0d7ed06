using System.Net.Sockets;
using NbdKit.Native;

namespace NbdKit.Transports;

/// <summary>Waits for one socket: at most one reader and one writer at a time. Costs nothing while nobody waits.</summary>
internal sealed class SocketWatch(ReadinessPoller poller, Socket socket, long id)
{
    private readonly Lock _lock = new();
    private readonly ReadinessSource _reader = new();
    private readonly ReadinessSource _writer = new();
    private bool _added;
    private bool _closed;

    public long Id { get; } = id;

    /// <summary>Completes when a receive would not block, or the watch was closed.</summary>
    public ValueTask WaitReadableAsync() => WaitAsync(_reader);

    /// <summary>Completes when a send would not block, or the watch was closed.</summary>
    public ValueTask WaitWritableAsync() => WaitAsync(_writer);

    /// <summary>Lets go whoever waits. Must come before the socket is disposed of: its descriptor may then be another's.</summary>
    public void Close()
    {
        lock (_lock)
        {
            _closed = true;
        }
        poller.Forget(this);
        _reader.Complete();
        _writer.Complete();
    }

    internal void Happened(uint events)
    {
        bool failed = (events & LinuxEpoll.Failed) != 0;
        bool readable = failed || (events & LinuxEpoll.Readable) != 0;
        bool writable = failed || (events & LinuxEpoll.Writable) != 0;
        bool completeReader;
        bool completeWriter;
        lock (_lock)
        {
            completeReader = readable && _reader.IsWaiting;
            completeWriter = writable && _writer.IsWaiting;
            // An event ends the arming for both; who still waits is armed for again.
            Arm(_reader.IsWaiting && !completeReader, _writer.IsWaiting && !completeWriter);
        }
        if (completeReader)
        {
            _reader.Complete();
        }
        if (completeWriter)
        {
            _writer.Complete();
        }
    }

    private ValueTask WaitAsync(ReadinessSource source)
    {
        lock (_lock)
        {
            ValueTask waiting = source.Begin();
            if (_closed)
            {
                source.Complete();
            }
            else if (!Arm(_reader.IsWaiting, _writer.IsWaiting))
            {
                source.Complete();
                // Without a watch there is nothing to wait for, and trying again at once would only burn CPU.
                throw new SocketException((int)SocketError.NoBufferSpaceAvailable);
            }
            return waiting;
        }
    }

    private bool Arm(bool reader, bool writer)
    {
        if (_closed || (!reader && !writer))
        {
            return true;
        }
        uint events = (reader ? LinuxEpoll.Readable : 0) | (writer ? LinuxEpoll.Writable : 0);
        try
        {
            return poller.Arm(this, (int)socket.SafeHandle.DangerousGetHandle(), events, ref _added);
        }
        catch (ObjectDisposedException)
        {
            return false;
        }
    }
}
