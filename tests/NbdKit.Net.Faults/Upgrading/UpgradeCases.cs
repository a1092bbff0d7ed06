using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Upgrading;

/// <summary>NBD_OPT_STARTTLS itself: its data, what is pipelined behind it, and what was said before it.</summary>
internal static class UpgradeCases
{
    public static TlsCase[] All { get; } =
    [
        new("1 byte of data with STARTTLS", scene => DataAsync(scene, 1)),
        new("64 KiB of data with STARTTLS", scene => DataAsync(scene, 64 << 10)),
        new("STARTTLS twice", TwiceAsync),
        new("1 byte pipelined", scene => PipelineAsync(scene, [0x49], NbdDisconnectReason.ConnectionLost)),
        new("an option pipelined", scene => PipelineAsync(
            scene, WireBytes.Option(Opt.StructuredReply, []), NbdDisconnectReason.ClientGone)),
        new("GO pipelined", scene => PipelineAsync(
            scene, WireBytes.Option(Opt.Go, WireBytes.InfoRequest([])), NbdDisconnectReason.ClientGone)),
        new("16 KiB pipelined", scene => PipelineAsync(
            scene, [.. Enumerable.Repeat((byte)0x49, 16 << 10)], NbdDisconnectReason.ProtocolViolation)),
        new("STARTTLS pipelined behind itself", scene => PipelineAsync(
            scene, WireBytes.Option(Opt.StartTls, []), NbdDisconnectReason.ClientGone)),
        new("an option in plain text after the ACK", async scene => await (await scene.HaggleAsync()).InsteadAsync(
            WireBytes.Option(Opt.List, []), NbdDisconnectReason.ClientGone)),
        new("GO in plain text after the ACK", async scene => await (await scene.HaggleAsync()).InsteadAsync(
            WireBytes.Option(Opt.Go, WireBytes.InfoRequest([])), NbdDisconnectReason.ClientGone)),
        new("1 byte in plain text after the ACK", async scene => await (await scene.HaggleAsync()).InsteadAsync(
            [0x49], NbdDisconnectReason.ConnectionLost)),
        new("structured replies injected before", scene => InjectAsync(scene, Opt.StructuredReply, [])),
        new("extended headers injected before", scene => InjectAsync(scene, Opt.ExtendedHeaders, [])),
        new("a meta context injected before", scene => InjectAsync(
            scene, Opt.SetMeta, WireBytes.MetaRequest([], "base:allocation"))),
        new("an export asked about before", scene => InjectAsync(scene, Opt.Info, WireBytes.InfoRequest([]))),
        new("ABORT in place of an upgrade", AbortAsync),
        new("EXPORT_NAME in place of an upgrade", ExportNameAsync),
    ];

    private static async Task DataAsync(TlsScene scene, int length)
    {
        TlsAttempt attempt = await scene.HaggleAsync();
        await attempt.Client.ExpectOptAsync(scene.HasTls ? Rep.Invalid : Rep.Unsup, Opt.StartTls, new byte[length]);
        await attempt.EnterAsync(scene.Alice);
        await attempt.LeaveAsync();
    }

    private static async Task TwiceAsync(TlsScene scene)
    {
        TlsAttempt attempt = await scene.HaggleAsync();
        WireClient inside = attempt.Client;
        await attempt.AskAsync();
        if (scene.HasTls)
        {
            inside = await inside.AuthenticateAsync(scene.Alice);
        }
        await inside.ExpectOptAsync(scene.HasTls ? Rep.Invalid : Rep.Unsup, Opt.StartTls);
        await inside.GoAsync();
        await scene.CheckAliveAsync(inside);
        await inside.SendRequestAsync(Cmd.Disc);
        await attempt.EndAsync(NbdDisconnectReason.ClientDone);
    }

    // Not even the wish for TLS is granted. A server without TLS takes it for what it is.
    private static async Task PipelineAsync(TlsScene scene, byte[] bytes, NbdDisconnectReason inPlain)
    {
        TlsAttempt attempt = await scene.HaggleAsync();
        await attempt.Client.SendAsync((byte[])[.. WireBytes.Option(Opt.StartTls, []), .. bytes]);
        await attempt.Client.FinishAsync();
        byte[] answer = await attempt.Client.ReadToEndAsync();
        Mutation.MutationException.Require(!scene.HasTls || answer.Length == 0, $"{answer.Length} bytes answer it");
        await attempt.EndAsync(scene.HasTls ? NbdDisconnectReason.ProtocolViolation : inPlain);
        scene.CheckNothingOpened();
    }

    // What was negotiated in plain text is forgotten: the client that does not know of it gets simple replies and no context.
    private static async Task InjectAsync(TlsScene scene, uint option, byte[] data)
    {
        TlsAttempt attempt = await scene.HaggleAsync();
        if (option == Opt.SetMeta && scene.Mode == TlsMode.Offered)
        {
            await attempt.Client.ExpectOptAsync(Rep.Ack, Opt.StructuredReply);
        }
        OptionResult result = await attempt.Client.OptAsync(option, data);
        Mutation.MutationException.Require(
            scene.Mode != TlsMode.Required || result.Type == Rep.TlsRequired, $"the answer was {result.Final}");
        if (!scene.HasTls)
        {
            // It counts, and nothing else may be expected of it.
            await attempt.Client.FinishAsync();
            await attempt.EndAsync(NbdDisconnectReason.ClientGone);
            return;
        }
        await attempt.EnterAsync(scene.Alice);
        Mutation.MutationException.Require(
            (attempt.Inside.Flags & (TxFlag.SendDf | TxFlag.BlockStatusPayload)) == 0, $"flags 0x{attempt.Inside.Flags:x}");
        await attempt.Inside.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
        await attempt.LeaveAsync();
    }

    private static async Task AbortAsync(TlsScene scene)
    {
        TlsAttempt attempt = await scene.HaggleAsync();
        await attempt.Client.ExpectOptAsync(Rep.Ack, Opt.Abort);
        await attempt.EndAsync(NbdDisconnectReason.ClientDone);
    }

    private static async Task ExportNameAsync(TlsScene scene)
    {
        TlsAttempt attempt = await scene.HaggleAsync();
        await attempt.Client.SendOptionAsync(Opt.ExportName);
        await attempt.Client.FinishAsync();
        byte[] answer = await attempt.Client.ReadToEndAsync();
        bool refused = scene.Mode == TlsMode.Required;
        Mutation.MutationException.Require(answer.Length == (refused ? 0 : 10), $"{answer.Length} bytes answer it");
        await attempt.EndAsync(refused ? NbdDisconnectReason.TlsRequired : NbdDisconnectReason.ClientGone);
    }
}
