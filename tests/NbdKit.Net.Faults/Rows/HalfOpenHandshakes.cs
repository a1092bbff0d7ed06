using System.Diagnostics;
using System.Net;
using NbdKit.Faults.Hostile;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>Thousands of clients that begin a handshake and stop at some place of it, or crawl.</summary>
internal sealed class HalfOpenHandshakes : Fault
{
    /// <summary>The places without TLS at which a client may stop.</summary>
    public const int PlainStates = 8;

    private const int AllStates = PlainStates + 3;
    private const int Crawling = 0;
    private const int Few = 50;

    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(10);

    // With what the looking takes, which is done every so often on both sides.
    private static readonly TimeSpan Tolerance = TimeSpan.FromMilliseconds(500);

    public override string Id => "F02";

    public override string Title => "half-open handshakes";

    /// <summary>How many clients there are at a time.</summary>
    public int Clients { get; init; } = 2_000;

    /// <summary>Begins a handshake, and stops.</summary>
    /// <param name="endPoint">Where to.</param>
    /// <param name="state">At which place.</param>
    public static RawClient Begin(EndPoint endPoint, int state)
    {
        RawClient client = RawClient.Connect(endPoint);
        byte[] go = WireBytes.Option(Opt.Go, WireBytes.InfoRequest([]));
        if (state > Crawling)
        {
            _ = client.Receive(18);
        }
        switch (state)
        {
            case Crawling or 1:
                break;
            case 2:
                client.Send([0, 0]);
                break;
            case 3:
                client.Send([0, 0, 0, 3]);
                break;
            case 4:
                client.Send([0, 0, 0, 3, .. go.AsSpan(0, 9)]);
                break;
            case 5:
                client.Send([0, 0, 0, 3, .. go.AsSpan(0, 16)]);
                break;
            case 6:
                client.Send([0, 0, 0, 3, .. go.AsSpan(0, go.Length - 1)]);
                break;
            case 7:
                client.Send([0, 0, 0, 3, .. WireBytes.Option(Opt.StructuredReply, [])]);
                _ = client.ReceiveOptionReply();
                break;
            default:
                client.Send([0, 0, 0, 3, .. WireBytes.Option(Opt.StartTls, [])]);
                _ = client.ReceiveOptionReply();
                // Nothing, or the begin of a record, or of a greeting in it.
                client.Send(new byte[] { 22, 3, 1, 0, 200, 1, 0, 0, 196 }.AsSpan(0, (state - PlainStates) * 4));
                break;
        }
        return client;
    }

    public override async Task<string> RunAsync(FaultRun run)
    {
        ProcessUse.RequireDescriptors((2 * Clients) + 1_000);
        long total = run.Size(Clients, 50_000);
        var said = "";
        for (long done = 0; done < total; done += Clients)
        {
            said = await WaveAsync(run);
        }
        return $"{total} clients, {said}";
    }

    private async Task<string> WaveAsync(FaultRun run)
    {
        var options = new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false } };
        await using FaultServer server = await FaultServer.StartAsync(
            (_, _, _) => default, options with { MaxConnections = Clients + 100 });
        await using FaultServer full = await FaultServer.StartAsync((_, _, _) => default, options with { MaxConnections = Few });
        Random random = run.Random();
        using var stop = new CancellationTokenSource();
        Task<string> visits = VisitAsync(server, stop.Token);
        Task<TimeSpan> slot = Task.Run(() => SlotAsync(full));
        string closed = await Task.Factory.StartNew(
            () => Attack(server, random), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        await stop.CancelAsync();
        string visited = await visits;
        TimeSpan free = await slot;
        server.Log.AssertClean();
        full.Log.AssertClean();
        return $"{closed}; {visited}; with no room left the first slot after {free.TotalSeconds:F2} s";
    }

    private string Attack(FaultServer server, Random random)
    {
        var clients = new List<(RawClient Client, int State, long Since)>();
        var ages = new List<double>();
        var deadline = Stopwatch.StartNew();
        long crawled = 0;
        while (clients.Count > 0 || ages.Count < Clients)
        {
            while (clients.Count + ages.Count < Clients && deadline.Elapsed < TimeSpan.FromSeconds(5))
            {
                // Its time begins when the server knows of it, which may be before or after this.
                int state = random.Next(AllStates);
                long before = Stopwatch.GetTimestamp();
                clients.Add((Begin(random.Next(2) == 0 ? server.Unix : server.Tcp, state), state, before));
            }
            for (int i = clients.Count - 1; i >= 0; i--)
            {
                if (clients[i].Client.IsClosed())
                {
                    ages.Add(Stopwatch.GetElapsedTime(clients[i].Since).TotalSeconds);
                    clients[i].Client.Dispose();
                    clients.RemoveAt(i);
                }
            }
            if (deadline.Elapsed > TimeSpan.FromSeconds(crawled + 1))
            {
                crawled++;
                Crawl(clients.Where(client => client.State == Crawling).Select(client => client.Client));
            }
            if (deadline.Elapsed > (2 * Deadline) + TimeSpan.FromSeconds(10))
            {
                throw new TimeoutException($"{clients.Count} clients were never closed.");
            }
            Thread.Sleep(10);
        }
        ages.Sort();
        return ages[0] < (Deadline - Tolerance).TotalSeconds || ages[^1] > (Deadline + Tolerance + MachineLag.Longest).TotalSeconds
            ? throw new InvalidOperationException($"Clients were closed after {ages[0]:F2} to {ages[^1]:F2} s.")
            : $"closed after {ages[0]:F2} to {ages[^1]:F2} s";
    }

    private static void Crawl(IEnumerable<RawClient> clients)
    {
        foreach (RawClient client in clients)
        {
            try
            {
                client.Send([0]);
            }
            catch (System.Net.Sockets.SocketException)
            {
                // Closed since it was looked at.
            }
        }
    }

    /// <summary>A polite client comes, reads and goes, again and again.</summary>
    private static async Task<string> VisitAsync(FaultServer server, CancellationToken stop)
    {
        var times = new List<double>();
        byte[] buffer = new byte[4096];
        while (!stop.IsCancellationRequested)
        {
            long begin = Stopwatch.GetTimestamp();
            await using (NbdClient client = await server.ConnectAsync())
            {
                await client.ReadAsync(buffer, 0, CancellationToken.None);
            }
            times.Add(Stopwatch.GetElapsedTime(begin).TotalMilliseconds);
            if (!buffer.AsSpan().SequenceEqual(FaultServer.Content.AsSpan(0, buffer.Length)))
            {
                throw new InvalidOperationException("A polite client read wrong bytes.");
            }
            await Task.Delay(100, CancellationToken.None);
        }
        times.Sort();
        double p90 = times[(times.Count - 1) * 9 / 10];
        return p90 > 100 + MachineLag.Longest.TotalMilliseconds
            ? throw new InvalidOperationException($"Polite clients took {p90:F0} ms to connect and read.")
            : $"{times.Count} polite clients served in {times[times.Count / 2]:F1} ms (p90 {p90:F1})";
    }

    /// <summary>With all slots taken by clients that say nothing, a polite one tries until it is let in.</summary>
    private static async Task<TimeSpan> SlotAsync(FaultServer server)
    {
        RawClient[] silent = [.. Enumerable.Range(0, Few).Select(_ => Begin(server.Unix, 1))];
        var watch = Stopwatch.StartNew();
        try
        {
            while (true)
            {
                try
                {
                    await using NbdClient client = await server.ConnectAsync();
                    break;
                }
                catch (NbdClientException) when (watch.Elapsed < Deadline + Deadline)
                {
                    await Task.Delay(50);
                }
            }
        }
        finally
        {
            foreach (RawClient client in silent)
            {
                client.Dispose();
            }
        }
        return watch.Elapsed < TimeSpan.FromSeconds(1) || watch.Elapsed > Deadline + Tolerance + MachineLag.Longest
            ? throw new InvalidOperationException($"The first slot was free after {watch.Elapsed.TotalSeconds:F2} s.")
            : watch.Elapsed;
    }
}
