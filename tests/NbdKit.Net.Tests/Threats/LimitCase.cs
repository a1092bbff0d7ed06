using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>One limit of a server: how a client reaches it, and what the log says of that.</summary>
/// <param name="Name">The limit, as its option is called.</param>
/// <param name="Said">What the log says, exactly once for a connection.</param>
/// <param name="ReachAsync">Lets a client reach it, several times if it can.</param>
internal sealed record LimitCase(string Name, string Said, Func<LimitScene, Task> ReachAsync)
{
    /// <summary>The options with which it is reached soon.</summary>
    public Func<NbdServerOptions, NbdServerOptions> Options { get; init; } = options => options;

    public override string ToString() => Name;

    /// <summary>Sends an option whose answers are not read, and expects that the client is cut off.</summary>
    public static async Task EndsAsync(WireClient client, NbdDisconnectReason reason)
    {
        await client.ReadToEndAsync();
        await client.ExpectEndAsync(reason);
    }
}
