using System.Diagnostics;
using System.Net.Sockets;
using NbdKit.Faults.Hostile;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>Handshakes that never end, ask for much with little, or make the back end work.</summary>
internal sealed class OptionFloods : Fault
{
    private const int Exports = 200;
    private const long MostReply = 16 << 20;
    private const long Free = 64 << 10;
    private const long MostRatio = 64;
    private const int MostOpens = 4;
    private const double MostMilliseconds = 2;
    private const int Few = 50;

    // How much of a shape a client sends if nobody stops it.
    private const int Repeats = 4_000;
    private const long MostSent = 4 << 20;

    // A machine on which a client that asks for nothing costs more than this is slower than the one that the limit is meant for.
    private const double PlainMilliseconds = 0.5;

    private long _opens;

    public override string Id => "F13";

    public override string Title => "amplification and option floods";

    /// <summary>How many clients there are of each shape.</summary>
    public int Clients { get; init; } = 1_000;

    public override async Task<string> RunAsync(FaultRun run)
    {
        int clients = (int)run.Size(Clients, 10L * Clients);
        await using FaultServer server = await FaultServer.StartAsync(Plugin(), new NbdServerOptions { MaxConnections = 64 });
        var quiet = await server.QuietAsync(TimeSpan.FromSeconds(1));
        var said = new List<string>();
        _ = await FloodAsync(server, "nothing", new byte[65_536], Few);
        double plain = (await FloodAsync(server, "nothing", new byte[65_536], clients)).Milliseconds;
        double slower = Math.Max(1, plain / PlainMilliseconds);
        said.Add($"a client that asks for nothing costs {plain:F2} ms");
        foreach ((string name, byte[] shape) in Shapes())
        {
            // Alone, so that what the process uses is the server's and the attacker's, and the first ones only warm up.
            _ = await FloodAsync(server, name, shape, Few);
            (long most, double each) = await FloodAsync(server, name, shape, clients);
            said.Add($"{name} {most} bytes, {each:F2} ms");
            if (each > MostMilliseconds * slower)
            {
                throw new InvalidOperationException($"{name}: a client cost {each:F2} ms of a processor.");
            }
        }
        await using (Bystander bystander = await server.BystanderAsync())
        {
            foreach ((string name, byte[] shape) in Shapes())
            {
                _ = await FloodAsync(server, name, shape, Math.Max(1, clients / 10));
            }
            said.Add(Fairness.Check(quiet, await bystander.EndAsync()));
        }
        server.Log.AssertClean();
        return $"{clients} clients of each shape: {string.Join("; ", said)}";
    }

    private static IEnumerable<(string Name, byte[] Shape)> Shapes()
    {
        ushort[] names = new ushort[30_000];
        Array.Fill(names, InfoType.Name);
        string[] queries = new string[30_000];
        Array.Fill(queries, "base:");
        yield return ("unknown options", WireBytes.Option(0x5a5a5a5a, []));
        yield return ("LIST", WireBytes.Option(Opt.List, []));
        yield return ("INFO", WireBytes.Option(Opt.Info, WireBytes.InfoRequest([])));
        yield return ("INFO with names", WireBytes.Option(Opt.Info, WireBytes.InfoRequest([], names)));
        yield return ("INFO of nothing", WireBytes.Option(Opt.Info, WireBytes.InfoRequest("no such export"u8)));
        yield return ("LIST_META", WireBytes.Option(Opt.ListMeta, WireBytes.MetaRequest([])));
        yield return ("LIST_META with queries", WireBytes.Option(Opt.ListMeta, WireBytes.MetaRequest([], queries.AsSpan(0, 1024))));
        yield return ("LIST_META with too many", WireBytes.Option(Opt.ListMeta, WireBytes.MetaRequest([], queries.AsSpan(0, 14_000))));
        yield return ("SET_META", WireBytes.Option(Opt.SetMeta, WireBytes.MetaRequest([], ["base:allocation", "base:allocation"])));
        yield return ("STRUCTURED_REPLY", WireBytes.Option(Opt.StructuredReply, []));
        yield return ("a huge option", new WireBytes().U64(Magic.IHaveOpt).U32(Opt.Info).U32(uint.MaxValue).Zeroes(65_536).ToArray());
        yield return ("no option at all", new byte[65_536]);
    }

    /// <summary>Some clients of one shape, one after the other.</summary>
    /// <returns>The longest reply, and what a client cost without what the attacker itself used, in milliseconds.</returns>
    private Task<(long Most, double Milliseconds)> FloodAsync(FaultServer server, string name, byte[] shape, int clients)
        => Task.Factory.StartNew(
            () => Flood(server, name, shape, clients), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private (long Most, double Milliseconds) Flood(FaultServer server, string name, byte[] shape, int clients)
    {
        long most = 0;
        TimeSpan cpu = ProcessUse.Cpu - ProcessUse.ThreadCpu;
        for (int i = 0; i < clients; i++)
        {
            Volatile.Write(ref _opens, 0);
            (long sent, long received) = One(server, shape, i);
            most = Math.Max(most, received);
            long opens = Volatile.Read(ref _opens);
            if (received > MostReply || received - Free > MostRatio * sent)
            {
                throw new InvalidOperationException($"{name}: {sent} bytes made {received}.");
            }
            // The exports that a client may ask for after it has listed them are opened once each.
            if (opens > (name == "LIST" ? Exports : MostOpens))
            {
                throw new InvalidOperationException($"{name}: one handshake opened the export {opens} times.");
            }
        }
        return (most, (ProcessUse.Cpu - ProcessUse.ThreadCpu - cpu).TotalMilliseconds / clients);
    }

    /// <summary>Sends a shape until the server has had enough, and takes every reply.</summary>
    private static (long Sent, long Received) One(FaultServer server, byte[] shape, int number)
    {
        using RawClient client = RawClient.Connect(number % 2 == 0 ? server.Unix : server.Tcp);
        client.Greet();
        client.Socket.Blocking = false;
        byte[] buffer = new byte[64 << 10];
        long sent = client.Sent;
        long received = client.Received;
        int position = 0;
        int repeats = 0;
        bool said = false;
        var watch = Stopwatch.StartNew();
        try
        {
            while (watch.Elapsed < TimeSpan.FromSeconds(20))
            {
                bool more = repeats < Repeats && sent < MostSent;
                if (!more && !said)
                {
                    said = true;
                    client.Socket.Shutdown(SocketShutdown.Send);
                }
                bool progress = false;
                if (more)
                {
                    int n = client.Socket.Send(shape.AsSpan(position), SocketFlags.None, out SocketError error);
                    if (error is not (SocketError.Success or SocketError.WouldBlock))
                    {
                        more = false;
                        repeats = Repeats;
                        said = true;
                    }
                    else if (n > 0)
                    {
                        progress = true;
                        sent += n;
                        position = (position + n) % shape.Length;
                        repeats += position == 0 ? 1 : 0;
                    }
                }
                int got = client.Socket.Receive(buffer, SocketFlags.None, out SocketError end);
                if (end == SocketError.Success)
                {
                    if (got == 0)
                    {
                        return (sent, received);
                    }
                    received += got;
                    progress = true;
                }
                else if (end != SocketError.WouldBlock)
                {
                    return (sent, received);
                }
                if (!progress)
                {
                    _ = client.Socket.Poll(1000, SelectMode.SelectRead);
                }
            }
        }
        catch (SocketException)
        {
            return (sent, received);
        }
        throw new TimeoutException("A handshake that should have been ended went on.");
    }

    private DelegatePlugin Plugin()
    {
        DelegatePlugin disk = FaultServer.Disk((_, _, _) => default);
        return new DelegatePlugin
        {
            ThreadModel = ThreadModel.Parallel,
            Size = disk.Size,
            Read = disk.Read,
            ListExports = (exports, _) =>
            {
                for (int i = 0; i < Exports; i++)
                {
                    exports.Add($"export {i}", "one of many");
                }
                return default;
            },
            Open = (context, _) =>
            {
                Interlocked.Increment(ref _opens);
                return context.ExportName.Length == 0
                    ? default
                    : throw new NbdException(NbdError.InvalidArgument, "there is no such export");
            },
        };
    }
}
