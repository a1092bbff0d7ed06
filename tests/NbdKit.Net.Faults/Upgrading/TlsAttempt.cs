using System.Net.Security;
using System.Security.Authentication;
using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Upgrading;

/// <summary>One connection of a scene, and how it must end.</summary>
internal sealed class TlsAttempt(TlsScene scene, WireClient client, TapWriter tap, FlightWriter flights)
{
    private WireClient? _inside;

    /// <summary>The client below TLS.</summary>
    public WireClient Client => client;

    /// <summary>The client inside TLS, or the plain one where there is no TLS.</summary>
    public WireClient Inside => _inside ?? client;

    /// <summary>Asks for TLS: acknowledged, or unsupported where there is none.</summary>
    public async Task AskAsync()
    {
        await client.ExpectOptAsync(scene.HasTls ? Rep.Ack : Rep.Unsup, Opt.StartTls);
        if (scene.HasTls)
        {
            tap.Mark();
        }
    }

    /// <summary>Enters transmission, inside TLS where there is any, and is served.</summary>
    public async Task EnterAsync(SslClientAuthenticationOptions options)
    {
        if (scene.HasTls)
        {
            await AskAsync();
            _inside = await client.AuthenticateAsync(options);
            MutationException.Require(_inside.Tls!.SslProtocol == scene.Version, $"it became {_inside.Tls.SslProtocol}");
        }
        await Inside.GoAsync();
        await scene.CheckAliveAsync(Inside);
    }

    /// <summary>Leaves in good order.</summary>
    public async Task LeaveAsync()
    {
        await Inside.SendRequestAsync(Cmd.Disc);
        await Inside.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        await EndAsync(NbdDisconnectReason.ClientDone);
    }

    /// <summary>Sends something in place of a handshake, whether TLS was granted or not, and nothing behind it.</summary>
    /// <param name="bytes">What is sent.</param>
    /// <param name="inPlain">How a server without TLS ends it.</param>
    public async Task InsteadAsync(byte[] bytes, NbdDisconnectReason inPlain = NbdDisconnectReason.ProtocolViolation)
    {
        await AskAsync();
        await client.SendAsync(bytes);
        await client.FinishAsync();
        await EndAsync(scene.HasTls ? NbdDisconnectReason.TlsFailed : inPlain);
        scene.CheckNothingOpened();
    }

    /// <summary>Makes a handshake that must fail. A client of a server without TLS makes it too.</summary>
    public async Task FailAsync(SslClientAuthenticationOptions options)
    {
        await AskAsync();
        await AuthenticateInVainAsync(options);
        await EndAsync(scene.HasTls ? NbdDisconnectReason.TlsFailed : NbdDisconnectReason.ProtocolViolation);
        scene.CheckNothingOpened();
    }

    /// <summary>Falls silent behind so many halves of its flights; time passes.</summary>
    public async Task StallAsync(int halves, SslClientAuthenticationOptions options)
    {
        await AskAsync();
        flights.Halves = halves;
        Task vain = AuthenticateInVainAsync(options);
        // A whole flight is answered first.
        for (int i = 0; i < 2000 && scene.HasTls && halves >= 2 && tap.Since == 0; i++)
        {
            await Task.Delay(1);
        }
        MutationException.Require(!scene.HasTls || halves < 2 || tap.Since > 0, "the first flight was not answered");
        if (scene.HasTls || halves == 0)
        {
            await scene.Time.AdvanceUntilAsync(client.Ended);
        }
        await EndAsync(scene.HasTls || halves == 0 ? NbdDisconnectReason.Timeout : NbdDisconnectReason.ProtocolViolation);
        await vain;
        scene.CheckNothingOpened();
    }

    /// <summary>The connection ends for this reason, and nothing but TLS came since it began.</summary>
    public async Task EndAsync(NbdDisconnectReason reason)
    {
        NbdDisconnect end = await client.Ended.WaitAsync(WireClient.Deadline);
        MutationException.Require(end.Reason == reason, $"the end was {end.Reason} ({end.Detail}), not {reason}");
        tap.Check();
    }

    private async Task AuthenticateInVainAsync(SslClientAuthenticationOptions options)
    {
        try
        {
            WireClient inside = await client.AuthenticateAsync(options);
            // In TLS 1.3 a client learns only from the next record that its certificate was refused.
            byte[] rest = await inside.ReadToEndAsync();
            MutationException.Require(rest.Length == 0, $"{rest.Length} bytes came inside TLS");
        }
        catch (Exception e) when (e is IOException or AuthenticationException)
        {
            // As it should be.
        }
    }
}
