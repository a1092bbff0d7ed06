namespace NbdKit.Tests.Testing;

/// <summary>What a program did: its exit status and everything that it printed.</summary>
internal sealed record PeerResult(string CommandLine, int Status, string Output, string Errors)
{
    /// <summary>Fails the test, with all that was printed, unless the program ended with this status.</summary>
    public PeerResult Expect(int status)
    {
        Assert.That(Status, Is.EqualTo(status), ToString());
        return this;
    }

    public override string ToString()
        => $"$ {CommandLine}\nexit status {Status}\n{Output}{(Errors.Length == 0 ? "" : "standard error:\n" + Errors)}";
}
