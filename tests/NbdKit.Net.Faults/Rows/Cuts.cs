using NbdKit.Faults.Cutting;

namespace NbdKit.Faults.Rows;

/// <summary>
/// Sessions with five handshakes and all commands that end at every byte, by the client or by the server, in order, by a reset, or
/// by a peer that says no more: in memory with fake time. Some of them, or all, over TCP, with and without TLS; there a stall ends at
/// its deadline of real time.
/// </summary>
/// <remarks>
/// Within TLS a handshake takes milliseconds: before a merge only every eleventh byte is tried there, beginning with another one
/// each time.
/// </remarks>
internal sealed class Cuts : Fault
{
    private const int TlsStep = 11;

    // What a client sends last in a session without requests, with some bytes by which signatures differ in length.
    private const int ClientTail = 200;

    // What a server says last within TLS is its goodbye, for which no client waits.
    private const int ServerTail = 30;

    // Of NBD and of TLS.
    private const int Goodbyes = 2;

    private const int StallsAtOnce = 100;
    private const int WiresAtOnce = 24;

    private static readonly CutKind[] Kinds = Enum.GetValues<CutKind>();

    public override string Id => "F04";

    public override string Title => "cut at every byte";

    public override async Task<string> RunAsync(FaultRun run)
    {
        int servers = await CutServersAsync();
        int clients = await CutClientsAsync();
        int tls = await CutTlsAsync(run.Choose(TlsStep, 1), run.Random().Next(TlsStep));
        (int sockets, string bystander) = await CutSocketsAsync(run);
        (int wires, int tlsWires) = await CutWiresAsync(run);
        (int records, int wireRecords) = await StallRecordsAsync(run);
        return $"{servers} of the server, {clients} of the client, {tls} with TLS, {records} stalls within a record, in memory; "
            + $"{sockets} of the server, {wires} of the client, {tlsWires} with TLS, {wireRecords} stalls within a record, over TCP; {bystander}";
    }

    private static async Task<int> CutServersAsync()
    {
        int count = 0;
        await using CutServer server = await CutServer.StartAsync();
        for (int form = 0; form < CutSession.Forms; form++)
        {
            for (int at = 0; at <= CutSession.OfClient(form).Bytes.Length; at++)
            {
                foreach (CutKind kind in Kinds)
                {
                    await Name($"server, form {form}, byte {at}, {kind}", server.RunAsync(form, at, kind));
                    count++;
                }
            }
        }
        return count;
    }

    private static async Task<int> CutClientsAsync()
    {
        int count = 0;
        for (int form = 0; form < CutSession.Forms; form++)
        {
            for (int at = 0; at <= CutSession.OfServer(form).Bytes.Length; at++)
            {
                foreach (CutKind kind in Kinds)
                {
                    await Name($"client, form {form}, byte {at}, {kind}", CutClient.RunAsync(form, at, kind));
                    count++;
                }
            }
        }
        return count;
    }

    private static async Task<int> CutTlsAsync(int step, int first)
    {
        int count = 0;
        await using var tls = new CutTls();
        foreach (bool client in new[] { true, false })
        {
            long handshake = await tls.RunAsync(long.MaxValue, CutKind.Finish, client, wholly: false);
            long all = await tls.RunAsync(long.MaxValue, CutKind.Finish, client, wholly: true);
            foreach (CutKind kind in Kinds)
            {
                // A client that is idle in the transmission phase has all the time there is; a signature may be shorter by a byte or two.
                long end = kind == CutKind.Stall ? handshake - ClientTail : all;
                for (long at = first; at < end; at += step)
                {
                    await Name($"TLS, {(client ? "client" : "server")}, byte {at}, {kind}", tls.RunAsync(at, kind, client, wholly: true));
                    count++;
                }
            }
        }
        return count;
    }

    /// <summary>Clients that know what they send, against our server.</summary>
    private static async Task<(int Count, string Bystander)> CutSocketsAsync(FaultRun run)
    {
        (int Form, int At)[] places =
        [
            .. Enumerable.Range(0, CutSession.Forms).SelectMany(
                form => Enumerable.Range(0, CutSession.OfClient(form).Bytes.Length + 1).Select(at => (form, at))),
        ];
        run.Random(1).Shuffle(places);
        int count = (int)Math.Min(places.Length, run.Size(60, places.Length));
        await using CutSocket sockets = await CutSocket.StartAsync(CutLimits.Long);
        foreach ((int form, int at) in places[..count])
        {
            await Name($"TCP, form {form}, byte {at}, end", sockets.RunAsync(form, at, CutKind.Finish));
            await Name($"TCP, form {form}, byte {at}, reset", sockets.RunAsync(form, at, CutKind.Reset));
        }
        string bystander = await sockets.EndAsync();
        await using CutSocket strict = await CutSocket.StartAsync(CutLimits.Short);
        await AtOnceAsync(places[..count], StallsAtOnce, async place => await Name(
            $"TCP, form {place.Form}, byte {place.At}, stall", strict.RunAsync(place.Form, place.At, CutKind.Stall)));
        return (Kinds.Length * count, $"{bystander}; among stalls, {await strict.EndAsync()}");
    }

    /// <summary>Our client against our server, of which one stops: with TLS both, else the server.</summary>
    private static async Task<(int Plain, int Tls)> CutWiresAsync(FaultRun run)
    {
        await using CutWire wire = await CutWire.StartAsync();
        var plain = new List<(int Form, long At, CutKind Kind, bool Client)>();
        for (int form = CutSession.Simple; form < CutSession.Forms; form++)
        {
            plain.AddRange(await PlacesAsync(wire, form, client: false));
        }
        List<(int Form, long At, CutKind Kind, bool Client)> tls =
            [.. await PlacesAsync(wire, CutWire.Tls, client: true), .. await PlacesAsync(wire, CutWire.Tls, client: false)];
        var chosen = new List<(int Form, long At, CutKind Kind, bool Client)>();
        foreach (List<(int Form, long At, CutKind Kind, bool Client)> all in new[] { plain, tls })
        {
            (int Form, long At, CutKind Kind, bool Client)[] shuffled = [.. all];
            run.Random(2).Shuffle(shuffled);
            chosen.AddRange(shuffled.Take((int)run.Size(60, all.Count)));
        }
        await AtOnceAsync(chosen, WiresAtOnce, async cut => await Name(
            $"TCP, form {cut.Form}, {(cut.Client ? "client" : "server")}, byte {cut.At}, {cut.Kind}",
            wire.RunAsync(cut.Form, cut.At, cut.Kind, cut.Client, wholly: true)));
        await wire.EndAsync();
        int withTls = chosen.Count(cut => cut.Form == CutWire.Tls);
        return (chosen.Count - withTls, withTls);
    }

    /// <summary>Clients that stop within a record, of the handshake's end, of an option or of a request: each is cut off at its deadline.</summary>
    private static async Task<(int Memory, int Tcp)> StallRecordsAsync(FaultRun run)
    {
        await using var tls = new CutTls();
        (int Record, int Within)[] places = await RecordsAsync(place => tls.RunAsync(long.MaxValue, CutKind.Stall, client: true, wholly: true, place));
        run.Random(3).Shuffle(places);
        int count = (int)Math.Min(places.Length, run.Size(150, places.Length));
        foreach ((int record, int within) in places[..count])
        {
            await Name($"TLS, record {record}, byte {within}", tls.RunAsync(
                long.MaxValue, CutKind.Stall, client: true, wholly: true, new RecordPlace(record, within)));
        }
        await using CutWire wire = await CutWire.StartAsync();
        (int Record, int Within)[] onWire = await RecordsAsync(place => wire.RunAsync(
            CutWire.Tls, long.MaxValue, CutKind.Finish, client: true, wholly: true, place));
        run.Random(4).Shuffle(onWire);
        int wired = (int)Math.Min(onWire.Length, run.Size(40, onWire.Length));
        await AtOnceAsync(onWire[..wired], WiresAtOnce, async place => await Name($"TCP, TLS, record {place.Record}, byte {place.Within}", wire.RunAsync(
            CutWire.Tls, long.MaxValue, CutKind.Stall, client: true, wholly: true, new RecordPlace(place.Record, place.Within))));
        await wire.EndAsync();
        return (count, wired);
    }

    /// <summary>
    /// All places within the records of a session that is not cut but of the goodbyes, behind which a client waits for nothing. At
    /// the end of a record it may be idle.
    /// </summary>
    private static async Task<(int Record, int Within)[]> RecordsAsync(Func<RecordPlace, Task> run)
    {
        var place = new RecordPlace(-1, 0);
        await run(place);
        return [.. place.Lengths.SkipLast(Goodbyes).SelectMany((length, record) => Enumerable.Range(1, length - 1).Select(within => (record, within)))];
    }

    private static async Task<IEnumerable<(int Form, long At, CutKind Kind, bool Client)>> PlacesAsync(CutWire wire, int form, bool client)
    {
        long handshake = await wire.RunAsync(form, long.MaxValue, CutKind.Finish, client, wholly: false);
        long all = await wire.RunAsync(form, long.MaxValue, CutKind.Finish, client, wholly: true);
        return Kinds.SelectMany(kind => Enumerable
            .Range(0, (int)(kind != CutKind.Stall ? all : client ? handshake - ClientTail : form == CutWire.Tls ? all - ServerTail : all))
            .Select(at => (form, (long)at, kind, client)));
    }

    private static Task AtOnceAsync<T>(IEnumerable<T> all, int most, Func<T, Task> run)
        => Parallel.ForEachAsync(all, new ParallelOptions { MaxDegreeOfParallelism = most }, async (each, _) => await run(each));

    private static async Task Name(string what, Task cut)
    {
        try
        {
            await cut;
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{what}: {e.Message}", e);
        }
    }
}
