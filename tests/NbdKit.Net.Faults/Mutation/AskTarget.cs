using NbdKit.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>A client that asks what exports there are and what they are, and what a server answers, before it opens one.</summary>
internal sealed class AskTarget : MutationTarget
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    public override string Name => "asks";

    public override MutantStream Make(Random random, bool legal)
    {
        ClientForm form = ClientForm.Any(random);
        return new MutantStream(
            form.Variant,
            legal
                ? Mutator.Chop(Mutator.Join(Session(random, form, legal)), random)
                : Mutator.Spoil(Session(random, form, legal), Session(random, form, legal), 0, random));
    }

    public override async Task<long> RunAsync(MutantStream stream, bool legal)
    {
        NbdClientOptions options = new ClientForm(stream.Variant).Options();
        var transport = new ReplayTransport(stream.Chunks, new MemoryStream());
        CancellationToken none = CancellationToken.None;
        ClientHandshake? handshake = await TryAsync(ClientHandshake.BeginAsync(transport, options, null, none), legal);
        if (handshake is not null)
        {
            IReadOnlyList<NbdExport>? exports = await TryAsync(handshake.ListAsync(none), legal);
            CheckInfo(await TryAsync(handshake.InfoAsync("", none), legal));
            await TryAsync(handshake.ListMetaContextsAsync("", [], none), legal);
            await TryAsync(handshake.ListMetaContextsAsync("", ["base:"], none), legal);
            if (await TryAsync(handshake.GoAsync("", none), legal) is { } session)
            {
                await new NbdClient(session, options).DisposeAsync().AsTask().WaitAsync(Patience);
            }
            await handshake.LeaveAsync().WaitAsync(Patience);
            foreach (NbdExport export in exports ?? [])
            {
                WireText.Check(System.Text.Encoding.UTF8.GetBytes(export.Name));
                WireText.Check(System.Text.Encoding.UTF8.GetBytes(export.Description ?? ""));
            }
        }
        RequestGrammar.Check(transport.Output);
        return stream.Length * 4;
    }

    private static List<WireMessage> Session(Random random, ClientForm form, bool legal)
    {
        return
        [
            .. ServerSpeech.Beginning(form, noZeroes: true),
            .. Answer(Opt.List, () => ServerSpeech.Exports(random)),
            .. Answer(Opt.Info, Infos(Opt.Info)),
            .. Answer(Opt.ListMeta, () => ServerSpeech.ContextList(Opt.ListMeta, form)),
            .. Answer(Opt.ListMeta, () => ServerSpeech.ContextList(Opt.ListMeta, form)),
            .. ServerSpeech.Contexts(form),
            .. Answer(Opt.Go, Infos(Opt.Go)),
        ];

        Func<List<WireMessage>> Infos(uint option) => () => ServerSpeech.Infos(
            random,
            option,
            form,
            [
                ServerSpeech.Blocks(1u << random.Next(legal ? 17 : 20), random.Next(2) == 0),
                ServerSpeech.TextInfo(InfoType.Name, "disk"),
                ServerSpeech.TextInfo(InfoType.Description, "a disk"),
                ServerSpeech.TextInfo(77, "what is this"),
            ]);

        List<WireMessage> Answer(uint option, Func<List<WireMessage>> good)
            => !legal && random.Next(6) == 0 ? [ServerSpeech.Refusal(random, option)] : good();
    }

    private static async Task<T?> TryAsync<T>(Task<T> call, bool legal)
        where T : class
    {
        try
        {
            return await call.WaitAsync(Patience);
        }
        catch (NbdClientException e) when (!legal)
        {
            MutationException.Require(e.Message.Length < 4096, $"a message of {e.Message.Length} characters");
            return null;
        }
    }

    private static void CheckInfo(Protocol.InfoReplies? infos)
    {
        if (infos is not null)
        {
            NbdExportInfo info = ClientExportInfo.From(infos, [ExtentList.BaseAllocation, "x", "x-test:second", "x-test:second"]);
            MutationException.Require(info is { Size: >= 0, CanExtents: true, MetaContexts.Count: 2 }, $"{info}");
        }
    }
}
