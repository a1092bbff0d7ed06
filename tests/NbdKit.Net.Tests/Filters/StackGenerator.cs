using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Makes random instances of one filter for stacks.</summary>
/// <param name="Name">The filter.</param>
/// <param name="Create">
/// Makes an instance that works on top of the model and changes the model accordingly, or returns null if there is
/// none.
/// </param>
internal sealed record StackGenerator(string Name, Func<StackModel, Random, INbdFilter?> Create);
