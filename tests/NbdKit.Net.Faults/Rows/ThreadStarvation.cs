using System.Diagnostics;
using NbdKit.Faults.Hostile;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>64 calls of a plugin block their threads; and a host with a single thread uses everything.</summary>
internal sealed class ThreadStarvation : Fault
{
    private const int Calls = 64;

    public override string Id => "F16";

    public override string Title => "threads that block";

    public override async Task<string> RunAsync(FaultRun run)
    {
        string told = await StarveAsync(isBlocking: true);
        string untold = await StarveAsync(isBlocking: false);
        var watch = Stopwatch.StartNew();
        await SingleThread.RunAsync(HostAsync).WaitAsync(30 * ProcessUse.Patience);
        return $"{Calls} calls that block: {told} if the plugin says so, {untold} if it does not; a host of one thread took {watch.Elapsed.TotalSeconds:F1} s";
    }

    private static async Task<string> StarveAsync(bool isBlocking)
    {
        using var release = new ManualResetEventSlim();
        int blocked = 0;
        DelegatePlugin plugin = FaultServer.Disk((_, _, _) =>
        {
            Interlocked.Increment(ref blocked);
            release.Wait(CancellationToken.None);
            return default;
        });
        plugin = new DelegatePlugin
        {
            ThreadModel = ThreadModel.Parallel,
            Size = plugin.Size,
            Read = plugin.Read,
            AdjustInfo = info => info with { IsBlocking = isBlocking },
        };
        await using FaultServer blocking = await FaultServer.StartAsync(plugin, new NbdServerOptions { MaxConnections = Calls + 1 });
        await using FaultServer other = await FaultServer.StartAsync((_, _, _) => default, new NbdServerOptions());
        var clients = new List<RawClient>();
        try
        {
            // One connection if its requests run beside each other, else one for each.
            int connections = isBlocking ? 4 : Calls;
            for (int i = 0; i < connections; i++)
            {
                clients.Add(RawClient.Go(blocking.Unix));
            }
            foreach (RawClient client in clients)
            {
                for (int i = 0; i < Calls / connections; i++)
                {
                    client.AskRead((ulong)i, 1 << 30, 512);
                }
            }
            await ProcessUse.UntilAsync(
                () => Volatile.Read(ref blocked) == Calls, 20 * ProcessUse.Patience, () => $"only {blocked} of {Calls} calls began");
            // The one that must not feel it, on a thread of its own: this process has no other to spare.
            double longest = await Task.Factory.StartNew(
                () => Visit(other), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
            return longest <= 1000 + MachineLag.Longest.TotalMilliseconds
                ? $"another export answered in {longest:F0} ms with {blocked} blocked"
                : throw new InvalidOperationException($"Another export answered after {longest:F0} ms, with {blocked} threads blocked.");
        }
        finally
        {
            release.Set();
            clients.ForEach(client => client.Dispose());
        }
    }

    private static double Visit(FaultServer server)
    {
        double longest = 0;
        for (int i = 0; i < 10; i++)
        {
            long begin = Stopwatch.GetTimestamp();
            using (RawClient client = RawClient.Go(i % 2 == 0 ? server.Unix : server.Tcp))
            {
                client.AskRead(1, 0, 4096);
                if (!client.Receive(16 + 4096).AsSpan(16).SequenceEqual(FaultServer.Content.AsSpan(0, 4096)))
                {
                    throw new InvalidOperationException("Another export was read wrongly.");
                }
            }
            longest = Math.Max(longest, Stopwatch.GetElapsedTime(begin).TotalMilliseconds);
        }
        return longest;
    }

    /// <summary>All that a host may call, where everything that came back to its context would have to share one thread.</summary>
    private static async Task HostAsync()
    {
        await using var server = new NbdServer(NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 }), new NbdServerOptions
        {
            EndPoints = [new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 0)],
        });
        await server.StartAsync();
        byte[] data = new byte[64 << 10];
        data.AsSpan().Fill(7);
        await using (NbdClient client = await NbdClient.ConnectAsync(server.EndPoints[0]))
        {
            for (int i = 0; i < 500; i++)
            {
                await client.WriteAsync(data, i % 16 * (64L << 10));
                byte[] read = new byte[data.Length];
                await client.ReadAsync(read, i % 16 * (64L << 10));
                if (!read.AsSpan().SequenceEqual(data))
                {
                    throw new InvalidOperationException("A host of one thread read something else than it had written.");
                }
            }
            // Blocks the only thread: whatever needed it would wait for ever.
            Task left = client.DisposeAsync().AsTask();
            if (!left.Wait(20 * ProcessUse.Patience))
            {
                throw new TimeoutException("A client needed the host's only thread to leave.");
            }
        }
        if (!server.StopAsync().Wait(20 * ProcessUse.Patience))
        {
            throw new TimeoutException("A server needed the host's only thread to stop.");
        }
    }
}
