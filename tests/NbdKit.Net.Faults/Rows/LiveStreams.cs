using System.Net.Sockets;
using NbdKit.Faults.Hostile;
using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>
/// Malformed streams for a server that listens, over sockets and from many clients at a time; some of them announce as much as
/// there may be, and hold on for a while. Every sixteenth is a good one, and must be served completely.
/// </summary>
internal sealed class LiveStreams : Fault
{
    private const int Clients = 16;
    private const int GoodEvery = 16;
    private const int GreedyEvery = 20;
    private const int HeldEvery = 16;

    // What a client keeps of the replies to judge them; what comes after that it throws away.
    private const int MostJudged = 1 << 20;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan Held = TimeSpan.FromMilliseconds(100);

    private static readonly NbdServerOptions Options = ServerTarget.Common with { MaxPayload = 32 << 20 };

    public override string Id => "F03";

    public override string Title => "malformed streams over sockets";

    public override async Task<string> RunAsync(FaultRun run)
    {
        int count = (int)run.Size(4_000, 400_000);
        var plugin = new MutantPlugin();
        await using FaultServer server = await FaultServer.StartAsync(plugin, Options);
        byte[] content = [.. Enumerable.Range(0, 64 << 10).Select(i => MutantPlugin.At((ulong)i))];
        await using var handshakes = new ServerTarget(handshake: true);
        await using var requests = new ServerTarget(handshake: false);
        int reset = 0;
        long most = 0;
        int served;
        await using (var bystander = new Bystander(await server.ConnectAsync(), content))
        {
            await Parallel.ForEachAsync(
                Enumerable.Range(0, count),
                new ParallelOptions { MaxDegreeOfParallelism = Clients },
                async (index, _) =>
                {
                    most = Math.Max(most, server.Server.Core.Budget.Held);
                    if (!await OneAsync(server, index % 3 == 0 ? handshakes : requests, run, index))
                    {
                        Interlocked.Increment(ref reset);
                    }
                });
            served = (await bystander.EndAsync()).Count;
        }
        await server.Server.StopAsync();
        server.Log.AssertClean();
        PoolBalance.Check(server.Server.Core);
        MutationException.Require(plugin.Broken is null, plugin.Broken!);
        MutationException.Require(plugin.Open == 0, $"{plugin.Open} contexts are open after the end");
        return $"{count} streams from {Clients} clients at a time, {reset} ended by a reset, {most >> 20} MiB held when looked at; a bystander was served {served} times";
    }

    /// <summary>Sends one stream and judges what comes; false if the server reset the connection, and nothing can be judged.</summary>
    private static async Task<bool> OneAsync(FaultServer server, ServerTarget target, FaultRun run, int index)
    {
        Random random = run.Random(index);
        bool legal = index % GoodEvery == 0;
        bool greedy = !legal && random.Next(GreedyEvery) == 0;
        bool holds = greedy || (!legal && random.Next(HeldEvery) == 0);
        byte[][] chunks = greedy ? [Greedy(random)] : target.Make(random, legal).Chunks;
        try
        {
            using RawClient client = RawClient.Connect(random.Next(2) == 0 ? server.Unix : server.Tcp);
            Task<byte[]?> receiving = ReceiveAsync(client.Socket);
            await SendAsync(client.Socket, chunks, holds ? Held : TimeSpan.Zero).WaitAsync(Patience);
            byte[]? received = await receiving.WaitAsync(Patience);
            MutationException.Require(received is not null || !legal, "a good session was reset");
            if (received?.Length < MostJudged)
            {
                Judge([.. chunks.SelectMany(chunk => chunk)], received, legal);
            }
            return received is not null;
        }
        catch (Exception e) when (e is MutationException or TimeoutException)
        {
            throw new MutationException($"stream {index}, seed {run.Seed}: {e.Message}\n{new MutantStream(0, chunks)}");
        }
    }

    private static void Judge(byte[] sent, byte[] received, bool legal)
    {
        var judge = new ServerJudge(
            sent, received, new ServerRules(3, RequirePayloadFlag: false, (uint)Options.MaxPayload, (uint)Options.MaxOptionPayload));
        // Why the server ended it is not known here, but what it sent is.
        judge.Check(NbdDisconnectReason.ProtocolViolation);
        MutationException.Require(
            !legal || judge is { Answered: > 0, Failed: 0 }, $"a good session ended with {judge.Answered} replies and {judge.Failed} errors");
    }

    // As much as there may be, of which little comes, or which nobody needs.
    private static byte[] Greedy(Random random)
    {
        int form = random.Next(5);
        List<WireMessage> session = ClientSpeech.Handshake(random, 0, form, "huge");
        bool writes = random.Next(4) > 0;
        session.Add(WireMessage.Request(
            form >= 3,
            writes ? Cmd.Write : Cmd.Read,
            form >= 3 && writes ? CmdFlag.PayloadLength : CmdFlag.None,
            1,
            0,
            (uint)Options.MaxPayload));
        return [.. Mutator.Join(session), .. new byte[writes ? random.Next(64 << 10) : 0]];
    }

    private static async Task SendAsync(Socket socket, byte[][] chunks, TimeSpan held)
    {
        try
        {
            foreach (byte[] chunk in chunks)
            {
                for (ReadOnlyMemory<byte> rest = chunk; rest.Length > 0;)
                {
                    rest = rest[await socket.SendAsync(rest)..];
                }
            }
            await Task.Delay(held);
            socket.Shutdown(SocketShutdown.Send);
        }
        catch (SocketException)
        {
            // The server has had enough of it.
        }
    }

    private static async Task<byte[]?> ReceiveAsync(Socket socket)
    {
        var received = new MemoryStream();
        byte[] buffer = new byte[64 << 10];
        try
        {
            while (await socket.ReceiveAsync(buffer) is var count and > 0)
            {
                received.Write(buffer, 0, (int)Math.Min(count, MostJudged - received.Length));
            }
            return received.ToArray();
        }
        catch (SocketException)
        {
            return null;
        }
    }
}
