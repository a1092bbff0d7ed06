namespace NbdKit.Filters;

/// <summary>Lets a request pass, changed or not, or refuses it; see <see cref="PolicyFilter.Decide"/>.</summary>
/// <param name="request">The request; what is changed in it holds for the layers below.</param>
/// <returns>Null to let it pass, else the error that it fails with.</returns>
public delegate NbdError? RequestPolicy(ref PolicyRequest request);
