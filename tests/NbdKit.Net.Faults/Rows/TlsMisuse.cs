using System.Security.Authentication;
using NbdKit.Client;
using NbdKit.Faults.Mutation;
using NbdKit.Faults.Upgrading;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>TLS is misused by clients and by servers, in every mode; each time the connection ends for one reason, or is served.</summary>
/// <remarks>
/// Not possible here: renegotiation, which no client in .NET can ask for (it is switched off for those that can), and a session
/// with a pre-shared key, which .NET does not have; a client that can do nothing else is one of the cases. Old versions are
/// spoken by their first message only, for no library here makes more of them.
/// </remarks>
internal sealed class TlsMisuse : Fault
{
    private static readonly SslProtocols[] Versions = [SslProtocols.Tls13, SslProtocols.Tls12];

    public override string Id => "F08";

    public override string Title => "TLS misuse";

    public override async Task<string> RunAsync(FaultRun run)
    {
        TlsCase[] cases = [.. UpgradeCases.All, .. HandshakeCases.All, .. SessionCases.All];
        var failed = new List<string>();
        int runs = 0;
        foreach (SslProtocols version in Versions)
        {
            foreach (TlsMode mode in Enum.GetValues<TlsMode>())
            {
                // Without TLS there is no version of it.
                foreach (TlsCase one in mode == TlsMode.None && version == Versions[^1] ? [] : cases)
                {
                    await NameAsync($"{one.Name}, {mode}, {version}", ServerAsync(one, mode, version), failed);
                    runs++;
                }
            }
            foreach (NbdTlsPolicy policy in Enum.GetValues<NbdTlsPolicy>())
            {
                foreach (ClientCase one in ClientCases.All)
                {
                    await NameAsync($"client, {one.Name}, {policy}, {version}", ClientAsync(one, policy, version), failed);
                    runs++;
                }
            }
        }
        MutationException.Require(failed.Count == 0, $"{failed.Count} of {runs} failed:\n{string.Join('\n', failed)}");
        return $"{cases.Length} cases for servers and {ClientCases.All.Length} for clients, {runs} runs, 0 bytes of plain text";
    }

    private static async Task ServerAsync(TlsCase one, TlsMode mode, SslProtocols version)
    {
        await using var scene = new TlsScene(mode, version);
        await scene.StartAsync();
        await one.RunAsync(scene);
        await scene.CheckAsync();
    }

    private static async Task ClientAsync(ClientCase one, NbdTlsPolicy policy, SslProtocols version)
    {
        NbdClientError? expected = policy switch
        {
            NbdTlsPolicy.Off => null,
            NbdTlsPolicy.Allow => one.Allowed,
            _ => one.Required,
        };
        var time = new FakeTimeProvider();
        ScriptedServer server = one.Server(version);
        Task<ClientSession> connecting = ConnectAsync(server, policy, time);
        if (one.Stalls && policy != NbdTlsPolicy.Off)
        {
            // Time must not pass before the client is where it waits.
            while (!connecting.IsCompleted && !server.Trace.Contains(Opt.StartTls))
            {
                await Task.Delay(1);
            }
            await time.AdvanceUntilAsync(connecting);
        }
        NbdClientError? seen = null;
        try
        {
            ClientSession session = await connecting.Soon();
            bool isTls = policy != NbdTlsPolicy.Off && one.Required is null;
            MutationException.Require(session.IsTls == isTls, $"TLS: {session.IsTls}");
            await session.Transport.CloseAsync();
        }
        catch (NbdClientException e)
        {
            seen = e.Error;
        }
        await server.Ended.Soon();
        MutationException.Require(seen == expected, $"the client ended with {seen}, not {expected}");
        MutationException.Require(policy != NbdTlsPolicy.Off || !server.Trace.Contains(Opt.StartTls), "TLS was asked for");
        // After the acknowledgement nothing is said in plain text, not even a goodbye.
        MutationException.Require(
            expected is not (NbdClientError.TlsFailed or NbdClientError.Timeout) || server.Trace.SequenceEqual([Opt.StartTls]),
            $"the client said {string.Join(", ", server.Trace)}");
        ScriptedServer good = ClientCases.Encrypting(version);
        ClientSession next = await ConnectAsync(good, policy, time).Soon();
        MutationException.Require(next.IsTls == (policy != NbdTlsPolicy.Off), "the next server was not served as it should");
        await next.Transport.CloseAsync();
        await good.Ended.Soon();
    }

    private static Task<ClientSession> ConnectAsync(ScriptedServer server, NbdTlsPolicy policy, TimeProvider time)
    {
        var options = new NbdClientOptions
        {
            Tls = policy,
            TlsAuthentication = policy == NbdTlsPolicy.Off ? null : ServerCertificates.Trusting(),
            TimeProvider = time,
        };
        return ClientConnector.ConnectAsync(server.Start().Client, options, CancellationToken.None);
    }

    private static async Task NameAsync(string name, Task running, List<string> failed)
    {
        try
        {
            await running;
        }
        catch (Exception e)
        {
            failed.Add($"{name}: {e}");
        }
    }
}
