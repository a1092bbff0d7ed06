using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Upgrading;

/// <summary>What goes wrong inside TLS, in the transmission phase; without TLS the same bytes come in plain text.</summary>
internal static class SessionCases
{
    private static readonly byte[] Half = WireBytes.Request(Cmd.Read, 1, 0, 512)[..20];

    public static TlsCase[] All { get; } =
    [
        Below("a cut record", [23, 3, 3, 0, 200, 1, 2, 3], NbdDisconnectReason.ConnectionLost),
        Below("a forged record", [23, 3, 3, 0, 32, .. new byte[32]], NbdDisconnectReason.ProtocolViolation),
        Below("an oversized record", [23, 3, 3, 0xff, 0xff, .. new byte[0xffff]], NbdDisconnectReason.ProtocolViolation),
        Below("a record of no type", [99, 3, 3, 0, 23, .. new byte[23]], NbdDisconnectReason.ProtocolViolation),
        Below("a request in plain text", WireBytes.Request(Cmd.Write, 1, 0, 512), NbdDisconnectReason.ConnectionLost),
        new("closed at the border of a message", scene => CloseAsync(scene, [], notify: false)),
        new("closed inside a message", scene => CloseAsync(scene, Half, notify: false)),
        new("close_notify at the border of a message", scene => CloseAsync(scene, [], notify: true)),
        new("close_notify inside a message", scene => CloseAsync(scene, Half, notify: true)),
        new("close_notify, then data", DataBehindAsync),
    ];

    /// <summary>Bytes below TLS, and the end.</summary>
    private static TlsCase Below(string name, byte[] bytes, NbdDisconnectReason inPlain)
        => new(name, async scene =>
        {
            TlsAttempt attempt = await scene.ServedAsync();
            await attempt.Client.SendAsync(bytes);
            await attempt.Client.FinishAsync();
            await attempt.EndAsync(scene.HasTls ? NbdDisconnectReason.ConnectionLost : inPlain);
        });

    private static async Task CloseAsync(TlsScene scene, byte[] before, bool notify)
    {
        TlsAttempt attempt = await scene.ServedAsync();
        await attempt.Inside.SendAsync(before);
        if (notify && scene.HasTls)
        {
            await attempt.Inside.Tls!.ShutdownAsync();
        }
        await attempt.Client.FinishAsync();
        await attempt.EndAsync(before.Length == 0 ? NbdDisconnectReason.ClientGone : NbdDisconnectReason.ConnectionLost);
    }

    // Behind its end a session has nothing to say, whatever comes.
    private static async Task DataBehindAsync(TlsScene scene)
    {
        TlsAttempt attempt = await scene.ServedAsync();
        if (scene.HasTls)
        {
            await attempt.Inside.Tls!.ShutdownAsync();
        }
        await attempt.Client.SendAsync(WireBytes.Request(Cmd.Read, 1, 0, 512));
        await attempt.Client.FinishAsync();
        await attempt.EndAsync(NbdDisconnectReason.ClientGone);
    }
}
