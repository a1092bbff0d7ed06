namespace NbdKit.Benchmarks.Attacks;

/// <summary>Something that a client may do to a server, and that every server should live through.</summary>
/// <param name="Name">What it is called in the table.</param>
/// <param name="Run">Does it; returns what was seen meanwhile, or nothing.</param>
internal sealed record Attack(string Name, Func<Victim, string> Run)
{
    /// <summary>The most descriptors that the server may have open, or null for as many as usual.</summary>
    public int? Descriptors { get; init; }

    /// <summary>Whether the server is stopped by it, so that nobody can be served afterwards.</summary>
    public bool Stops { get; init; }

    public static IReadOnlyList<Attack> All { get; } =
    [
        new("2,000 clients that connect and say nothing", HandshakeAttacks.Silence),
        new("a hang-up after every byte of the handshake, 40 times", HandshakeAttacks.Cuts),
        new("every length of an option at and beyond its bounds", HandshakeAttacks.Lengths),
        new("one question 12,000 times in each of 40 options", HandshakeAttacks.Repetition),
        new("64 reads of 1 MiB in flight, then gone, 1,000 times", TransmissionAttacks.Vanish),
        new("50 clients that ask for 100 GiB and read nothing", TransmissionAttacks.Deaf),
        new("1,000 clients, 128 descriptors", HandshakeAttacks.Descriptors) { Descriptors = 128 },
        new("the order to stop, with 50 busy and 20 half open clients", TransmissionAttacks.Stop) { Stops = true },
    ];
}
