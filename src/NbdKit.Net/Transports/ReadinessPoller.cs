using System.Net.Sockets;
using System.Runtime.InteropServices;
using NbdKit.Native;

namespace NbdKit.Transports;

/// <summary>
/// Tells which sockets of a server can be read or written, with one thread for all that wait (Linux).
/// </summary>
/// <remarks>
/// A socket that was once awaited through the runtime stays in the runtime's own event loop for good, and every message for it
/// wakes that loop and a pool thread, even while another thread blocks in a receive: more than half of the cost of a request.
/// Here a socket is watched only while something waits for it.
/// </remarks>
internal sealed class ReadinessPoller : IDisposable
{
    private const int Interrupted = 4;
    private const int BatchSize = 128;
    private const long StopId = 0;

    private readonly Lock _lock = new();
    private readonly Dictionary<long, SocketWatch> _watches = [];
    private long _lastId;
    private int _descriptor = -1;
    private int _signal = -1;
    private bool _disposed;

    /// <summary>A watch for a socket, or null where the platform has no such thing.</summary>
    public SocketWatch? Watch(Socket socket)
    {
        if (!OperatingSystem.IsLinux())
        {
            return null;
        }
        lock (_lock)
        {
            if (_disposed || (_descriptor < 0 && !Start()))
            {
                return null;
            }
            var watch = new SocketWatch(this, socket, ++_lastId);
            _watches.Add(watch.Id, watch);
            return watch;
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            if (_disposed)
            {
                return;
            }
            _disposed = true;
        }
        CloseWatches();
        if (_descriptor >= 0)
        {
            LinuxEpoll.Signal(_signal);
        }
    }

    internal void Forget(SocketWatch watch)
    {
        lock (_lock)
        {
            _watches.Remove(watch.Id);
        }
    }

    /// <summary>Watches for the next event; false if the kernel refused.</summary>
    internal bool Arm(SocketWatch watch, int descriptor, uint events, ref bool added)
    {
        int operation = added ? LinuxEpoll.Modify : LinuxEpoll.Add;
        // Not for the end of what the peer sends by itself: readable tells a reader, and a writer who is told would be armed for it
        // again and again.
        bool armed = LinuxEpoll.Control(_descriptor, operation, descriptor, events | LinuxEpoll.OneShot, watch.Id) == 0;
        added |= armed;
        return armed;
    }

    private bool Start()
    {
        int descriptor = LinuxEpoll.Create();
        if (descriptor < 0)
        {
            return false;
        }
        _signal = LinuxEpoll.CreateSignal();
        if (_signal < 0 || LinuxEpoll.Control(descriptor, LinuxEpoll.Add, _signal, LinuxEpoll.Readable, StopId) != 0)
        {
            LinuxEpoll.Close(descriptor);
            return false;
        }
        _descriptor = descriptor;
        new Thread(Run) { IsBackground = true, Name = "NBD idle sockets" }.UnsafeStart();
        return true;
    }

    private void Run()
    {
        Span<byte> events = stackalloc byte[BatchSize * 16];
        while (true)
        {
            int count = LinuxEpoll.Wait(_descriptor, events);
            if (count < 0 && Marshal.GetLastPInvokeError() != Interrupted)
            {
                // Cannot happen to a descriptor that is ours; if it does, nobody may wait for events that never come.
                CloseWatches();
                return;
            }
            for (int i = 0; i < count; i++)
            {
                (uint happened, long id) = LinuxEpoll.Read(events, i);
                if (id == StopId)
                {
                    Close();
                    return;
                }
                Find(id)?.Happened(happened);
            }
        }
    }

    private SocketWatch? Find(long id)
    {
        lock (_lock)
        {
            return _watches.GetValueOrDefault(id);
        }
    }

    private void CloseWatches()
    {
        SocketWatch[] watches;
        lock (_lock)
        {
            watches = [.. _watches.Values];
        }
        foreach (SocketWatch watch in watches)
        {
            watch.Close();
        }
    }

    private void Close()
    {
        // No socket is armed any more: Dispose has closed all watches before it gave the signal.
        LinuxEpoll.Close(_descriptor);
        LinuxEpoll.Close(_signal);
    }
}
