using NbdKit.Faults.Cutting;

namespace NbdKit.Faults.Rows;

/// <summary>
/// Sessions with five handshakes and all commands that end at every byte, by the client or by the server, in order, by a reset, or
/// by a peer that says no more: in memory with fake time. Some of them, or all, over TCP.
/// </summary>
/// <remarks>
/// Within TLS a handshake takes milliseconds: before a merge only every eleventh byte is tried there, beginning with another one
/// each time.
/// </remarks>
internal sealed class Cuts : Fault
{
    private const int TlsStep = 11;

    private static readonly CutKind[] Kinds = Enum.GetValues<CutKind>();

    public override string Id => "F04";

    public override string Title => "cut at every byte";

    public override async Task<string> RunAsync(FaultRun run)
    {
        int servers = await CutServersAsync();
        int clients = await CutClientsAsync();
        int tls = await CutTlsAsync(run.Choose(TlsStep, 1), run.Random().Next(TlsStep));
        (int sockets, string bystander) = await CutSocketsAsync(run);
        return $"{servers} of the server, {clients} of the client, {tls} with TLS, {sockets} over TCP; {bystander}";
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
                long end = kind == CutKind.Stall ? handshake - 200 : all;
                for (long at = first; at < end; at += step)
                {
                    await Name($"TLS, {(client ? "client" : "server")}, byte {at}, {kind}", tls.RunAsync(at, kind, client, wholly: true));
                    count++;
                }
            }
        }
        return count;
    }

    private static async Task<(int Count, string Bystander)> CutSocketsAsync(FaultRun run)
    {
        (int Form, int At)[] places =
        [
            .. Enumerable.Range(0, CutSession.Forms).SelectMany(
                form => Enumerable.Range(0, CutSession.OfClient(form).Bytes.Length + 1).Select(at => (form, at))),
        ];
        run.Random(1).Shuffle(places);
        int count = (int)Math.Min(places.Length, run.Size(150, places.Length));
        await using CutSocket sockets = await CutSocket.StartAsync();
        foreach ((int form, int at) in places[..count])
        {
            await Name($"TCP, form {form}, byte {at}, end", sockets.RunAsync(form, at, CutKind.Finish));
            await Name($"TCP, form {form}, byte {at}, reset", sockets.RunAsync(form, at, CutKind.Reset));
        }
        return (2 * count, await sockets.EndAsync());
    }

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
