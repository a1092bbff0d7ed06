using System.Diagnostics;
using System.Net.Security;
using System.Net.Sockets;
using NbdKit.Faults.Hostile;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>Thousands of clients that have entered transmission and say nothing.</summary>
internal sealed class IdleConnections : Fault
{
    private const int MostPlain = 26 << 10;
    private const int MostTls = 64 << 10;

    // A session has two ends, and both are in this process.
    private const int Ends = 2;

    public override string Id => "F01";

    public override string Title => "idle connections";

    public override async Task<string> RunAsync(FaultRun run)
    {
        int plain = (int)run.Size(5_000, 10_000);
        int tls = run.Choose(500, 2_000);
        ProcessUse.RequireDescriptors((2 * (plain + tls)) + 1_000);
        var options = new NbdServerOptions
        {
            MaxConnections = plain + tls + 100,
            Backlog = 4_096,
            Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false },
        };
        await using FaultServer server = await FaultServer.StartAsync((_, _, _) => default, options);
        await WarmUpAsync(server);
        var quiet = await server.QuietAsync(TimeSpan.FromSeconds(1));
        var clients = new List<IDisposable>();
        try
        {
            long before = Settled();
            for (int i = 0; i < plain; i++)
            {
                clients.Add(RawClient.Go(i % 2 == 0 ? server.Unix : server.Tcp));
            }
            long afterPlain = Settled();
            for (int i = 0; i < tls; i++)
            {
                clients.Add(await TlsClientAsync(server));
            }
            long afterTls = Settled();
            long each = (afterPlain - before) / plain;
            long eachTls = (afterTls - afterPlain) / tls;
            // Whoever was busy in the handshake still has a thread for some seconds.
            await ProcessUse.UntilAsync(() => ServerThreads() <= 1, TimeSpan.FromSeconds(30), () => $"{ServerThreads()} threads for idle clients");
            (int, double, double) disturbed;
            await using (Bystander bystander = await server.BystanderAsync())
            {
                await Task.Delay(TimeSpan.FromSeconds(1));
                disturbed = await bystander.EndAsync();
            }
            string fair = Fairness.Check(quiet, disturbed);
            var watch = Stopwatch.StartNew();
            await server.Server.StopAsync();
            TimeSpan stop = watch.Elapsed;
            server.Log.AssertClean();
            return each > MostPlain || eachTls > Ends * MostTls || stop > 5 * ProcessUse.Patience
                ? throw new InvalidOperationException($"{each} bytes each, {eachTls} bytes each with TLS, stopped after {stop.TotalSeconds:F1} s.")
                : $"{plain} clients of {each} bytes, {tls} with TLS of {eachTls} for both ends, stopped after {stop.TotalSeconds:F2} s, {fair}";
        }
        finally
        {
            clients.ForEach(client => client.Dispose());
        }
    }

    private static async Task WarmUpAsync(FaultServer server)
    {
        for (int i = 0; i < 50; i++)
        {
            RawClient.Go(server.Unix).Dispose();
            RawClient.Go(server.Tcp).Dispose();
            (await TlsClientAsync(server)).Dispose();
        }
    }

    private static long Settled()
    {
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        return ProcessUse.ResidentBytes;
    }

    private static async Task<IDisposable> TlsClientAsync(FaultServer server)
    {
        RawClient client = RawClient.Connect(server.Unix);
        client.Greet();
        client.Send(WireBytes.Option(Opt.StartTls, []));
        _ = client.ReceiveOptionReply();
        var stream = new SslStream(new NetworkStream(client.Socket, ownsSocket: true));
        await stream.AuthenticateAsClientAsync(TestCertificates.Client());
        await stream.WriteAsync(WireBytes.Option(Opt.Go, WireBytes.InfoRequest([])));
        byte[] header = new byte[20];
        do
        {
            await stream.ReadExactlyAsync(header);
            await stream.ReadExactlyAsync(new byte[System.Buffers.Binary.BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(16))]);
        }
        while (System.Buffers.Binary.BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12)) != Rep.Ack);
        return stream;
    }

    private static int ServerThreads()
        => Directory.GetDirectories("/proc/self/task").Count(task =>
        {
            try
            {
                return File.ReadAllText(Path.Combine(task, "comm")).StartsWith("NBD conn", StringComparison.Ordinal);
            }
            catch (IOException)
            {
                return false;
            }
        });
}
