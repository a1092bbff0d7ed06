using System.Diagnostics;
using System.Net.Sockets;
using NbdKit.Faults.Hostile;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>1,000 clients come to a server whose process may have 128 descriptors.</summary>
internal sealed class NoDescriptors : Fault
{
    // With as many as the system lets wait, of which some are served.
    private const int Clients = 1_000;
    private const int Limit = 128;

    public override string Id => "F15";

    public override string Title => "no descriptors left";

    public override async Task<string> RunAsync(FaultRun run)
    {
        ProcessUse.RequireDescriptors(Clients + 500);
        TimeSpan time = TimeSpan.FromSeconds(run.Size(15, 30));
        using var folder = new ScratchDirectory();
        await using ServingChild server = await ServingChild.StartAsync(folder["s"], descriptors: Limit);
        var served = new List<RawClient>();
        var waiting = new List<RawClient>();
        try
        {
            for (int i = 0; i < Clients; i++)
            {
                RawClient client = RawClient.Connect(server.EndPoint);
                (served.Count == i && TryGo(client) ? served : waiting).Add(client);
            }
            TimeSpan before = server.Cpu;
            await Task.Delay(time);
            double share = (server.Cpu - before) / time;
            TimeSpan recovered = await RecoverAsync(served, waiting);
            int warnings = server.Warnings;
            if (served.Count < 10 || waiting.Count < Clients - Limit)
            {
                throw new InvalidOperationException($"{served.Count} clients were served; the limit changed nothing.");
            }
            if (share > 0.05 || warnings < 1 || warnings > 2 + ((time.TotalSeconds + 10) / 10))
            {
                throw new InvalidOperationException($"{share:P1} of a processor and {warnings} lines of log in {time.TotalSeconds} s.");
            }
            Check(served[^1]);
            served.ForEach(client => client.Dispose());
            waiting.ForEach(client => client.Dispose());
            await server.EndAsync();
            return $"{served.Count} of {Clients} served, {share:P2} of a processor while full, {warnings} lines of log, "
                + $"the next served {recovered.TotalMilliseconds:F0} ms after one had gone";
        }
        finally
        {
            served.ForEach(client => client.Dispose());
            waiting.ForEach(client => client.Dispose());
        }
    }

    /// <summary>Some go: the first that waits is served instead.</summary>
    private static async Task<TimeSpan> RecoverAsync(List<RawClient> served, List<RawClient> waiting)
    {
        TimeSpan longest = TimeSpan.Zero;
        for (int i = 0; i < 5; i++)
        {
            served[0].Dispose();
            served.RemoveAt(0);
            long begin = Stopwatch.GetTimestamp();
            await ProcessUse.UntilAsync(
                () => waiting.Exists(client => client.Socket.Available > 0), ProcessUse.Patience, () => "nobody was accepted after one had gone");
            TimeSpan took = Stopwatch.GetElapsedTime(begin);
            longest = took > longest ? took : longest;
            RawClient next = waiting.First(client => client.Socket.Available > 0);
            waiting.Remove(next);
            next.Greet();
            next.Go();
            served.Add(next);
        }
        return longest;
    }

    private static void Check(RawClient client)
    {
        client.AskRead(1, 0, 4096);
        if (!client.Receive(16 + 4096).AsSpan(16).SequenceEqual(FaultServer.Content.AsSpan(0, 4096)))
        {
            throw new InvalidOperationException("One that is served read wrong bytes.");
        }
    }

    private static bool TryGo(RawClient client)
    {
        if (!client.Socket.Poll(TimeSpan.FromSeconds(1), SelectMode.SelectRead))
        {
            return false;
        }
        try
        {
            client.Greet();
            client.Go();
            return true;
        }
        catch (Exception e) when (e is SocketException or EndOfStreamException)
        {
            return false;
        }
    }
}
